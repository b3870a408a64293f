"""RWalk: weights count by their Fisher information and by how much of the fall of the loss came along their path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.callbacks.regularization.anchor import QuadraticAnchor
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.weights import Snapshot, StepRecord, trained
from lightning_cl.training import TaskData


class WalkPenalty(QuadraticAnchor):
    """Running Fisher information and path scores, both made of the training steps."""

    def __init__(self, module: nn.Module, strength: float, alpha: float, every: int, path: float, norm: bool) -> None:
        super().__init__(module, 2 * strength)  # its penalty has no factor 1/2
        self.alpha, self.every, self.path_share, self.normalize = alpha, every, path, norm
        weights, self.steps = trained(module), Counter()
        self.fisher, self.score, self.earlier = (Snapshot(weights, zero=True) for _ in range(3))
        #: Of the interval that is being walked: squares, fall of the loss, and where it began.
        self.squares, self.fall, self.begun = (Snapshot(weights, zero=True) for _ in range(3))
        self._step = StepRecord()

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Remember the task's gradient, before the pull and before clipping, and the weights."""
        if not self.steps.value:
            self.begun.take(trained(module))
        self._step.remember(trained(module, optimizer))
        super().edit_gradients(module, optimizer)

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """Count the step that was made; an interval ends after ``every`` of them."""
        squares, falls = dict(self.squares.items()), dict(self.fall.items())
        for name, gradient, way in self._step.made(trained(module, optimizer)):
            squares[name].addcmul_(gradient, gradient)
            falls[name].addcmul_(gradient, way)
        self.steps.set(self.steps.value + 1)
        if self.steps.value == self.every:
            self._close(trained(module))

    def _close(self, weights: Mapping[str, Tensor]) -> None:
        """``F <- alpha * mean g^2 + (1 - alpha) F``; ``s += max(fall / (F (w - w_begun)^2 / 2 + eps), 0)``."""
        squares, falls, begun = (dict(part.items()) for part in (self.squares, self.fall, self.begun))
        scores = dict(self.score.items())
        for name, fisher in self.fisher.items():
            fisher.lerp_(squares[name] / self.steps.value, self.alpha)
            length = fisher * (weights[name] - begun[name]).square() / 2
            scores[name].add_((falls[name] / (length + torch.finfo(length.dtype).eps)).clamp_min(0))
            squares[name].zero_()
            falls[name].zero_()
        self.steps.set(0)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """``s <- (s_earlier + s) / 2``, and the importance ``F + path * s``, both of a largest value of 1."""
        if self.steps.value:
            self._close(trained(module))
        scores, fisher = dict(self.score.items()), dict(self.fisher.items())
        for name, earlier in self.earlier.items():
            earlier.lerp_(scores[name], 0.5 if self.anchor.taken else 1.0)
            scores[name].zero_()
        known = dict(self.earlier.items())
        top, longest = (largest(part) if self.normalize else 1.0 for part in (fisher, known))
        for name, kept in self.importance.items():
            kept.copy_(fisher[name] / top + self.path_share * known[name] / longest)
        super().end_task(module, data)


def largest(tensors: Mapping[str, Tensor]) -> Tensor:
    """The largest value in any of the tensors, not negative; 1 where all are 0."""
    top = torch.stack([tensor.max() for tensor in tensors.values() if tensor.numel()]).max()
    return torch.where(top > 0, top, 1.0)


@dataclass(eq=False)
class RWalk(RegularizedMethod):
    """Riemannian walk (RWalk; Chaudhry et al., ECCV 2018, arXiv:1801.10112).

    Adds ``strength * sum_k (F_k + path * s_k) (w_k - a_k)^2`` to the loss, as its gradient; ``a`` are the weights at
    the end of the last task. After every ``every`` steps ``F <- alpha * mean g^2 + (1 - alpha) * F`` and ``s +=
    max(fall / (F (w - w_begun)^2 / 2 + eps), 0)``, where ``fall = sum g (w before a step - w after it)``; ``g`` is the
    task's own gradient of a whole batch, before penalty and clipping. At a task's end ``s <- (s_earlier + s) / 2``.
    Works on any module, with a head or without; needs task ends, keeps eight copies of the weights and no sample.

    Args:
        strength: ``lambda``, at least 0; with 0 it is plain fine-tuning. The default is of our own.
        alpha: Share of the newest interval in ``F``, in [0, 1]; the paper's.
        every: Optimiser steps of an interval, at least 1; the paper suggests 10 to 50.
        path: Weight of the scores ``s``, at least 0; with 0, ``alpha=1`` and no normalisation it is online EWC with the
            Fisher matrix of the last ``every`` steps.
        normalize: Divide ``F`` and ``s`` by their largest values, as the paper does.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.RWalk"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    needs_head: ClassVar[bool] = False

    strength: float = 10.0
    alpha: float = fraction(default=0.9)
    every: int = at_least(1, default=10)
    path: float = at_least(0, default=1.0)
    normalize: bool = True

    def build(self, pl_module: Any, info: Any) -> WalkPenalty:
        """Anchor, importance and walk of the weights that are trained when the method is attached."""
        return WalkPenalty(pl_module, self.strength, self.alpha, self.every, self.path, self.normalize)
