"""Fast and slow weights: fast ones learn a task beside what they must keep, slow ones follow them from task to task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lightning_cl.callbacks.arguments import fraction
from lightning_cl.callbacks.regularization.mas import MAS, SensitivityPenalty
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.weights import Snapshot, overwrite, trained
from lightning_cl.training import TaskData


class TwoSpeeds(SensitivityPenalty):
    """The slow weights beside anchor and importance of the fast ones, which are the module's."""

    def __init__(self, module: Any, method: FastSlowWeights) -> None:
        super().__init__(module, method.strength, method.decay, method.granularity)
        self.beta, self.slow = method.beta, Snapshot(trained(module))

    def start_task(self, module: Any, task: Any) -> None:
        """The fast weights begin with the slow ones."""
        weights = trained(module)
        if not self.slow.taken:
            self.slow.take(weights)
        overwrite(weights, self.slow.items())

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Take the importance of the fast weights; the slow ones go a share of the way to them."""
        super().end_task(module, data)
        weights = trained(module)
        self.slow.take({name: torch.lerp(kept, weights[name], self.beta) for name, kept in self.slow.items()})


@dataclass(eq=False)
class FastSlowWeights(MAS):
    """Fast and slow weights, style (after few-shot continual learning, arXiv:2104.09034).

    Every task begins with the slow weights. In it the fast ones, which are the module's own and answer, learn with the
    penalty ``strength * sum_k F_k (w_k - a_k)^2`` of :class:`MAS` towards those with which the task before ended. At
    its end ``slow <- slow + beta (fast - slow)``. ``beta=1`` is :class:`MAS`, with ``strength=0`` plain fine-tuning;
    ``beta=0`` lets every task begin with the weights of the first. In this style and no reproduction: of the paper no
    code is public, and its update equations are not known to us. Works on any module with a class head; needs task
    boundaries; keeps three copies of the trained weights and no sample. The slow weights, for classes of few samples
    that come later, are ``module.continual.parts["fastslowweights"].slow``.

    Args:
        strength: ``lambda``, at least 0.
        decay: Of the importance of earlier tasks at each task's end, in [0, 1].
        beta: In [0, 1]; the default is of our own.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.FastSlowWeights"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = ("moves its slow weights", "`MAS`")
    rewrites_weights: ClassVar[bool] = True

    beta: float = fraction(default=0.3)

    def build(self, pl_module: Any, info: Any) -> TwoSpeeds:
        """Anchor, importance and slow weights."""
        return TwoSpeeds(pl_module, self)
