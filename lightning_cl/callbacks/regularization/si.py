"""Synaptic intelligence: weights count by how much of the fall of the loss came along their path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.regularization.anchor import QuadraticAnchor
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.weights import Snapshot, StepRecord, trained
from lightning_cl.training import TaskData


class PathPenalty(QuadraticAnchor):
    """The path integral of the task's own gradient as importance."""

    def __init__(self, module: nn.Module, strength: float, damping: float) -> None:
        super().__init__(module, 2 * strength)  # its penalty has no factor 1/2
        self.damping, self.path = damping, Snapshot(trained(module), zero=True)
        self._step = StepRecord()

    @torch.no_grad()
    def start_task(self, module: Any, task: Any) -> None:
        """The first path starts at the weights with which training starts."""
        weights = trained(module)
        for name, kept in self.anchor.items() if not self.anchor.taken else ():
            kept.copy_(weights[name])

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Remember the task's gradient, before the pull and before clipping, and the weights."""
        self._step.remember(trained(module, optimizer))
        super().edit_gradients(module, optimizer)

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """``path += g * (w_before - w_after)``, of the step that was made."""
        paths = dict(self.path.items())
        for name, gradient, way in self._step.made(trained(module, optimizer)):
            paths[name].addcmul_(gradient, way)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """``F += max(path, 0) / ((w - a)^2 + damping)``; then a new path from here."""
        weights, anchors, paths = trained(module), dict(self.anchor.items()), dict(self.path.items())
        for name, kept in self.importance.items():
            kept.add_(paths[name].clamp_min(0) / ((weights[name] - anchors[name]).square() + self.damping))
            paths[name].zero_()
        super().end_task(module, data)


@dataclass(eq=False)
class SynapticIntelligence(RegularizedMethod):
    """Synaptic intelligence (SI; Zenke et al., ICML 2017, arXiv:1703.04200).

    Adds ``strength * sum_k F_k (w_k - a_k)^2`` to the loss, as its gradient; ``a`` are the weights at the end of the
    last task. In every step ``path_k += g_k (w_k before - w_k after)`` with the task's own gradient ``g``, unscaled,
    before the penalty and before clipping, and the step that the optimiser really made; at a task's end
    ``F_k += max(path_k, 0) / ((w_k - a_k)^2 + damping)``. Works on any module, with a head or without, under any
    optimiser; needs the end of a task; keeps three copies of the trained weights and no sample, and makes no pass.

    Args:
        strength: ``c``, at least 0; with 0 it is plain fine-tuning.
        damping: ``xi``, above 0; bounds the importance of weights that hardly moved. The default is the paper's for
            CIFAR; a usual pair for SGD on CIFAR-10 is ``strength=0.5, damping=1.0``.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.SynapticIntelligence"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    needs_head: ClassVar[bool] = False

    damping: float = above(0, default=1e-3)

    def build(self, pl_module: Any, info: Any) -> PathPenalty:
        """Anchor, importance and path of the weights that are trained when the method is attached."""
        return PathPenalty(pl_module, self.strength, self.damping)
