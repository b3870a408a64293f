"""ZSCL's weight ensemble: what a task leaves is the running average of the weights that it passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.weights import Snapshot, ema, overwrite
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.trained_body import trained_body


class WeightEnsemble(MethodModule):
    """The average of the task's first weights and those after every so many steps."""

    def __init__(self, module: Any, every: int) -> None:
        super().__init__()
        self.every, self.steps = every, Counter()
        self.average = Snapshot(trained_body(module) if every else {})

    def start_task(self, module: Any, task: Any) -> None:
        """Begin with the weights that the last task left."""
        self.average.take(trained_body(module))
        self.steps.set(0)

    def after_step(self, module: Any, optimizer: Any) -> None:
        """``average <- average + (w - average) / (n + 1)`` after the ``n``-th of the counted steps."""
        if not self.every:
            return
        self.steps.set(self.steps.value + 1)
        count, rest = divmod(self.steps.value, self.every)
        if rest == 0:
            ema(dict(self.average.items()), trained_body(module), count / (count + 1))

    def end_task(self, module: Any, data: TaskData) -> None:
        """The average answers from here on, and the next task begins with it."""
        overwrite(trained_body(module), self.average.items())


@dataclass(eq=False)
class ZSCL(TaskwiseMethod):
    """ZSCL-style weight ensembling (Zheng et al., ICCV 2023, arXiv:2303.06628); of that work this part alone.

    Within a task ``a_n = (w_n + n a_(n-1)) / (n + 1)``, where ``a_0`` are the weights at the task's start and ``w_n``
    those after every ``every``-th optimiser step; at its end the weights become ``a_n``, and the next task begins
    there. All trained weights but the head's, whose rows are new, are averaged; buffers (batch norm's statistics) are
    not. ZSCL's other part, distillation of features on an external set of images and texts, is not here. Made to keep
    what a pre-trained network knows of classes that are never trained, as CLIP does; it works on any module and beside
    any method that fine-tunes. Needs task boundaries, keeps one copy of the averaged weights, and costs no pass.

    Args:
        every: Optimiser steps from one counted point to the next, at least 0; 0 is plain fine-tuning. The paper counts
            every 100th of 1,000 steps a task.

    Raises:
        ValueError: If ``every`` is negative.
    """

    state_key: ClassVar[str] = "lightning_cl.ZSCL"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    rewrites_weights: ClassVar[bool] = True
    constrains: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"every": 2}

    every: int = at_least(0, default=100)

    def build(self, pl_module: Any, info: Any) -> WeightEnsemble:
        """A copy of the averaged weights."""
        return WeightEnsemble(pl_module, self.every)
