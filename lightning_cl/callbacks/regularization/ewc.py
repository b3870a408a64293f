"""Elastic weight consolidation: weights that earlier tasks need are pulled back to where those left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import check_at_least, check_choice, check_share
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.batch import Inputs, call_with
from lightning_cl.mixins.features import evaluating
from lightning_cl.nn.fisher import Fisher, fisher_diagonal
from lightning_cl.nn.weights import Snapshot, pull_gradients, trained
from lightning_cl.training import MethodModule, TaskData

Anchor = Literal["last", "each"]
Importance = Literal["true", "sampled", "empirical", "batch", "steps"]


class QuadraticPenalty(MethodModule):
    """Anchor and importance of every trained weight, and the pull between them."""

    def __init__(self, module: nn.Module, strength: float, decay: float, fisher: Importance, anchor: Anchor) -> None:
        super().__init__()
        self.strength, self.decay, self.fisher, self.anchored_at = strength, decay, fisher, anchor
        self.anchor, self.importance = Snapshot(trained(module)), Snapshot(trained(module), zero=True)
        self.running = Snapshot(trained(module) if fisher == "steps" else {}, zero=True)
        self.register_buffer("steps", torch.zeros(()))

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """The gradient of the penalty; before it, the step's own gradient is counted where that is asked for."""
        weights = trained(module)
        for name, total in self.running.items():
            if weights[name].grad is not None:
                total.add_(weights[name].grad.square())
        if self.running.names:
            self.steps += 1
        if self.anchor.taken and self.strength:
            pull_gradients(weights, dict(self.anchor.items()), self.strength, dict(self.importance.items()))

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
            found = {name: total / self.steps.clamp_min(1) for name, total in self.running.items()}
            for total in (*self.running.buffers(), self.steps):
                total.zero_()
            return found
        return fisher_of_task(module, data, self.fisher)


def fisher_of_task(module: Any, data: TaskData, kind: Fisher) -> dict[str, Tensor]:
    """Mean over the task's samples of the diagonal of the Fisher matrix, over all processes, in eval mode."""
    weights: dict[str, Tensor] = dict(trained(module))
    total, count = {name: torch.zeros_like(weight) for name, weight in weights.items()}, 0

    def logits(known: Mapping[str, Tensor], inputs: Any) -> Tensor:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(module, dict(known), args, kwargs)

        answer: Tensor = call_with(forward, Inputs(inputs) if several else inputs)
        return answer

    with evaluating(module):
        for inputs, targets, _ in data.batches():
            count += len(targets)
            several = isinstance(inputs, Inputs)
            given = inputs.parts if several else inputs
            found = fisher_diagonal(logits, weights, given, targets, kind) if len(targets) else {}
            for name, value in found.items():
                total[name] += value
    return {name: data.mean(value, count) for name, value in total.items()}


@dataclass(eq=False)
class EWC(ContinualMethod):
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017, arXiv:1612.00796).

    Adds ``strength / 2 * sum_k F_k (w_k - a_k)^2`` to the loss, as its gradient: ``F`` is the diagonal of the Fisher
    matrix, ``a`` the weights at the end of the last task. ``F <- decay * F + F_task`` (online EWC, arXiv:1805.06370).
    Works on any module, needs the end of a task, keeps two copies of the trained weights and no sample.

    Args:
        strength: ``lambda``, at least 0; with 0 it is plain fine-tuning. Code bases without the factor 1/2 give half
            of this number.
        decay: Of the importance of earlier tasks at each task's end, in [0, 1]; 1 sums them up.
        fisher: Whose gradients are squared: ``"empirical"`` (of the sample's label), ``"true"`` (expected over the
            model's answers; a pass for each class), ``"sampled"`` (one answer is drawn), ``"batch"`` (the mean over a
            batch), all by a pass over the task's data in eval mode; or ``"steps"``: of the training steps, as they are
            made, which needs no pass and no class head.
        anchor: ``"last"``: all importance holds at the last task's end (online); ``"each"``: that of each task at its
            own end (offline, in constant memory: the sum of quadratic functions is one).
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: If a number is out of its range or a choice unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.EWC"
    small: ClassVar[dict[str, Any]] = {"strength": 30.0}

    strength: float = 1000.0
    decay: float = 1.0
    fisher: Importance = "empirical"
    anchor: Anchor = "last"
    _: KW_ONLY
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "strength")
        check_share(self, "decay")
        check_choice(self, "fisher", Importance)
        check_choice(self, "anchor", Anchor)

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        """Only a pass over the data needs the class logits."""
        return self.fisher != "steps"

    def build(self, pl_module: Any, info: Any) -> QuadraticPenalty:
        """Anchor and importance of the weights that are trained when the method is attached."""
        return QuadraticPenalty(pl_module, self.strength, self.decay, self.fisher, self.anchor)
