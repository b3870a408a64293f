"""Shrink and perturb: before a new task all weights shrink towards zero and get some noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.callbacks.boundaries import check_boundaries
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import Guard
from lightning_cl.nn.plasticity import shrink_and_perturb_
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule
from lightning_cl.training.step_seed import generator_of


class Shrinking(MethodModule):
    """Counts optimiser steps, and shrinks the trained weights when it is time."""

    comes_last = True  # when the others know what is to stay

    def __init__(self, shrink: float, noise: float, every: int | None) -> None:
        super().__init__()
        self.shrink, self.noise, self.every, self.made = shrink, noise, every, Counter()

    def start_task(self, module: Any, task: Any) -> None:
        """Shrink before every task but the first, unless it goes by steps, but for what other methods keep."""
        if self.every is None and task.index > 0:
            others = [part for part in module.continual.ordered_parts if part is not self]
            guards = [Guard(weight, rows) for part in others for weight, rows in part.protected(module)]
            self._change(module, task.index)
            for guard in guards:
                guard.restore()

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Shrink after every so many steps, if it goes by them."""
        if self.every is not None:
            self.made.set(self.made.value + 1)
            if self.made.value % self.every == 0:
                self._change(module, self.made.value)

    def _change(self, module: Any, number: int) -> None:
        shrink_and_perturb_(trained(module), self.shrink, self.noise, generator_of(module, 0x5A9, number))


@dataclass(eq=False)
class ShrinkAndPerturb(ContinualMethod):
    """Shrink and perturb (Ash & Adams, NeurIPS 2020, arXiv:1910.08475), against the loss of plasticity.

    Before every task but the first ``w <- shrink * w + noise * n`` for all trained weights, with ``n`` standard normal:
    what was learned keeps its direction, and the network can learn something new nearly as well as from the start. It
    forgets more, so it is for streams on which new tasks count, or beside a memory. Buffers (batch norm's statistics)
    stay, and what other methods keep for earlier tasks. Works on any module; keeps nothing but a counter and costs no
    pass.

    Args:
        shrink: In [0, 1].
        noise: Standard deviation, at least 0. Both defaults are of our own, chosen on label permutations of handwritten
            digits; with 1 and 0 it is plain fine-tuning.
        every: Shrink after so many optimiser steps, at least 1, and not before tasks: for streams without boundaries.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, in a stream of one pass without ``every``.
    """

    state_key: ClassVar[str] = "lightning_cl.ShrinkAndPerturb"
    boundaries: ClassVar[Boundaries] = "needed"  # unless `every` is given
    needs_forward: ClassVar[bool] = False
    rewrites_weights: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"every": 3}

    shrink: float = fraction(default=0.8)
    noise: float = at_least(0, default=0.05)
    every: int | None = at_least(1, default=None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a stream without boundaries that it was given no interval for."""
        if self.every is None:
            name = type(self).__name__
            check_boundaries(require_stream(trainer, name), name, "shrinks the weights", "give `every` in steps")
        super().setup(trainer, pl_module, stage)

    def build(self, pl_module: Any, info: Any) -> Shrinking:
        """A counter."""
        return Shrinking(self.shrink, self.noise, self.every)
