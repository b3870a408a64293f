"""Elastic weight consolidation: weights that earlier tasks need are pulled back to where those left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import choice, fraction
from lightning_cl.callbacks.regularization.anchor import QuadraticAnchor, fisher_of_task
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.weights import Snapshot, trained
from lightning_cl.training import TaskData

Anchor = Literal["last", "each"]
Importance = Literal["true", "sampled", "empirical", "batch", "steps"]


class FisherPenalty(QuadraticAnchor):
    """The diagonal of the Fisher matrix as importance."""

    def __init__(self, module: nn.Module, strength: float, decay: float, fisher: Importance, anchor: Anchor) -> None:
        super().__init__(module, strength)
        self.decay, self.fisher, self.anchored_at = decay, fisher, anchor
        self.running = Snapshot(trained(module) if fisher == "steps" else {}, zero=True)
        self.steps = Counter()

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Count the step's own gradient where that is asked for; then the pull."""
        if self.running.names:
            weights = trained(module, optimizer)
            for name, total in self.running.items():
                gradient = weights[name].grad if name in weights else None
                if gradient is not None:
                    total.add_(gradient.square())
            self.steps.set(self.steps.value + 1)
        super().edit_gradients(module, optimizer)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Add the task's importance, and move the anchor to the present weights."""
        weights, found = trained(module), self._found(module, data)
        anchors = dict(self.anchor.items())
        for name, kept in self.importance.items():
            kept.mul_(self.decay).add_(found[name])
            if self.anchored_at == "each" and self.anchor.taken:  # sum_t F_t (w - a_t)^2, up to a constant
                share = torch.where(kept > 0, found[name] / kept, 1.0)
                weights[name] = torch.lerp(anchors[name], weights[name], share)  # type: ignore[assignment]
        self.anchor.take(weights)

    def _found(self, module: Any, data: TaskData) -> Mapping[str, Tensor]:
        if self.fisher == "steps":
            found = {name: total / max(self.steps.value, 1) for name, total in self.running.items()}
            self.steps.set(0)
            for _, total in self.running.items():
                total.zero_()
            return found
        return fisher_of_task(module, data, self.fisher)


@dataclass(eq=False)
class EWC(RegularizedMethod):
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017, arXiv:1612.00796).

    Adds ``strength / 2 * sum_k F_k (w_k - a_k)^2`` to the loss, as its gradient: ``F`` is the diagonal of the Fisher
    matrix, ``a`` the weights at the end of the last task. ``F <- decay * F + F_task`` (online EWC, arXiv:1805.06370).
    Works on any module, needs the end of a task, keeps two copies of the trained weights and no sample.

    Args:
        strength: ``lambda``, at least 0; with 0 it is plain fine-tuning. The default is of our own, the best of 1e3,
            1e4 and 1e5 on handwritten digits. Code bases without the factor 1/2 give half of this number.
        decay: Of the importance of earlier tasks at each task's end, in [0, 1]; 1 sums them up.
        fisher: Whose gradients are squared: ``"empirical"`` (of the sample's label), ``"true"`` (expected over the
            model's answers; a pass for each class), ``"sampled"`` (one answer is drawn), ``"batch"`` (the mean over a
            batch), all by a pass over the task's data in eval mode; or ``"steps"``: of the training steps, as they are
            made, which needs no pass and no class head.
        anchor: ``"last"``: all importance holds at the last task's end (online); ``"each"``: that of each task at its
            own end (offline, in constant memory: the sum of quadratic functions is one).

    Raises:
        ValueError: If a number is out of its range or a choice unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.EWC"
    boundaries: ClassVar[Boundaries] = "taken"
    small: ClassVar[dict[str, Any]] = {"strength": 30.0}

    strength: float = 10000.0
    decay: float = fraction(default=1.0)
    fisher: Importance = choice(Importance, default="empirical")
    anchor: Anchor = choice(Anchor, default="last")

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        """Only a pass over the data needs the class logits."""
        return self.fisher != "steps"

    @property
    def needs_forward(self) -> bool:  # type: ignore[override]
        """As for the class logits."""
        return self.needs_head

    def build(self, pl_module: Any, info: Any) -> FisherPenalty:
        """Anchor and importance of the weights that are trained when the method is attached."""
        return FisherPenalty(pl_module, self.strength, self.decay, self.fisher, self.anchor)
