"""k-FPF: fine-tuning is interrupted by phases on a memory, at equal distances in the whole stream."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.replay.fpf import FPF, ProneWeights, prone_weights
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.counter import Counter
from lightning_cl.training import TaskData


class InterruptedSteps(ProneWeights):
    """Phases at equal distances in the whole stream, whatever its tasks."""

    def __init__(self, names: list[str], steps: int, lr: float, phases: int) -> None:
        super().__init__(names, steps, lr)
        self.phases, self.made, self.done = phases, Counter(), Counter()
        self._total = 0

    def start_run(self, module: Any) -> None:
        """Ask for the steps of the whole stream."""
        self._total = sum(module.trainer.datamodule.steps_of_tasks())

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Count the step; after each ``1 / phases`` of all steps comes a phase."""
        self.made.set(self.made.value + 1)
        if self.made.value * self.phases >= self._total * (self.done.value + 1):
            self._phase(module)

    def end_task(self, module: Any, data: TaskData) -> None:
        """The last phase comes at the stream's end, also where a task stopped early."""
        if data.task.index == module.continual.info.num_tasks - 1 and self.done.value < self.phases:
            self._phase(module)

    def _phase(self, module: Any) -> None:
        self.tune(module)
        self.done.set(self.done.value + 1)


@dataclass(eq=False)
class KFPF(FPF):
    """Fine-tuning that is interrupted ``k`` times by a phase of FPF (k-FPF; Zhao et al., ICML 2023, arXiv:2304.04158).

    The stream is trained on without any sample of the memory, which only fills; after each ``1 / phases`` of all
    optimiser steps of the whole stream, whatever its tasks, comes a phase as in :class:`FPF`. Needs no task boundary:
    only the steps of the stream must be known. See :class:`FPF` for what it works on.

    Args:
        phases: ``k``, at least 0; with 0 it is plain fine-tuning. The last one comes after the last step.

    Raises:
        ValueError: As :class:`FPF`.
    """

    state_key: ClassVar[str] = "lightning_cl.KFPF"
    boundaries: ClassVar[Boundaries] = "unused"
    joins: ClassVar[bool] = False

    _: KW_ONLY
    phases: int = at_least(0, default=9)

    def build(self, pl_module: Any, info: Any) -> InterruptedSteps:
        """The weights that a phase tunes, and when."""
        return InterruptedSteps(prone_weights(pl_module, self.select), self.steps, self.lr, self.phases)
