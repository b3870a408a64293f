"""MER-style replay: after some steps on stream and memory, the weights go only a part of the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.weights import Snapshot, interpolate, overwrite, trained
from lightning_cl.training import MethodModule, TaskData


class ReptileSteps(MethodModule):
    """The weights at the beginning of a block of steps, and the step of Reptile at its end."""

    def __init__(self, module: nn.Module, rate: float, steps: int) -> None:
        super().__init__()
        self.rate, self.steps, self.made = rate, steps, Counter()
        self.begun = Snapshot(trained(module) if rate < 1 else {})

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Remember the weights before the first step of a block."""
        if self.rate < 1 and not self.made.value:
            self.begun.take(trained(module))

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Count the step."""
        if self.rate < 1:
            self.made.set(self.made.value + 1)
            if self.made.value == self.steps:
                self._close(module)

    def end_task(self, module: Any, data: TaskData) -> None:
        """A task's end closes a block, too."""
        if self.made.value:
            self._close(module)

    def _close(self, module: Any) -> None:
        """``w <- w_begun + rate * (w - w_begun)``."""
        weights = trained(module)
        known = {name: weights[name] for name in self.begun.names}
        overwrite(known, interpolate(dict(self.begun.items()), known, self.rate).items())
        self.made.set(0)


@dataclass(eq=False)
class MER(ExperienceReplay):
    """Meta-experience replay, style (after MER; Riemer et al., ICLR 2019, arXiv:1810.11910).

    Remembered samples, a reservoir of the stream, join every batch as in :class:`ExperienceReplay`; after every
    ``steps`` steps of the user's optimiser the weights become ``w_begun + rate * (w - w_begun)`` (Reptile), which
    favours directions on which the gradients of the steps agree. In this style and not a reproduction: the paper makes
    a step for every single sample, and two such averages, one within a batch and one over batches. Needs no task
    boundary (where there is one, it ends a block); works on any module. It costs a copy of the trained weights.

    Args:
        rate: Share of the way, in [0, 1]; 1 is plain experience replay, 0 keeps the weights where they are.
        steps: Optimiser steps of a block, at least 1. It and ``rate`` are chosen here.
        policy: See :class:`ExperienceReplay`; the paper's is ``"reservoir"``.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a number out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.MER"
    needs_forward: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "steps": 3}

    rate: float = fraction(default=0.5)
    steps: int = at_least(1, default=10)

    def build(self, pl_module: Any, info: Any) -> ReptileSteps:
        """A copy of the trained weights."""
        return ReptileSteps(pl_module, self.rate, self.steps)
