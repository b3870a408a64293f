"""Refresh learning: before every step the batch is unlearned a little, and the step learns it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.regularization.anchor import logits_of, mean_over_task
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.fisher import per_sample_sum
from lightning_cl.nn.unlearning import unlearn_
from lightning_cl.nn.weights import Snapshot, trained
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.batch_gradients import batch_gradients
from lightning_cl.training.step_seed import step_seed


class UnlearningSteps(MethodModule):
    """The Fisher information of earlier tasks, and a step away from the batch."""

    def __init__(self, module: nn.Module, delta: float, noise: float, damping: float, decay: float) -> None:
        super().__init__()
        self.delta, self.noise, self.damping, self.decay = delta, noise, damping, decay
        self.fisher = Snapshot(trained(module) if delta else {}, zero=True)

    def start_step(self, step: Step) -> None:
        """``w += delta / (1 + damping * F) * (|w| g / |g| + noise * n)``, with ``g`` the gradient of the batch."""
        if not self.delta:
            return
        module, fishers = step.module, dict(self.fisher.items())
        weights = {name: weight for name, weight in trained(module).items() if name in fishers}
        gradients = batch_gradients(step, weights)
        generator = torch.Generator(module.device).manual_seed(step_seed(module, 0x8EF))
        for name, weight in weights.items():
            normal = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
            unlearn_(weight, gradients[name], fishers[name], normal, self.delta, self.noise, self.damping)
        module.restore_protected()

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """``F <- decay * F + F_task``."""
        found = label_fisher(module, data) if self.delta else {}
        for name, kept in self.fisher.items():
            kept.mul_(self.decay).add_(found[name])


def label_fisher(module: Any, data: TaskData) -> dict[str, Tensor]:
    """Mean of ``p(y | x) (d log p(y | x))^2`` over the task's samples with their own labels ``y``, in eval mode."""
    logits = logits_of(module)

    def root(weights: Mapping[str, Tensor], inputs: Any, targets: Tensor) -> Tensor:
        log_p = -F.cross_entropy(logits(weights, inputs), targets)
        return (log_p.detach() / 2).exp() * log_p  # its squared gradient is p (d log p)^2

    def sums(weights: Mapping[str, Tensor], inputs: Any, targets: Tensor) -> Mapping[str, Tensor]:
        return per_sample_sum(root, weights, inputs, targets) if len(targets) else {}

    return mean_over_task(module, data, sums)


@dataclass(eq=False)
class Refresh(ContinualMethod):
    """Refresh learning (Wang et al., ICLR 2024, arXiv:2403.13249): unlearn the batch a little, then learn it again.

    Before every step each weight moves up the loss of the batch, ``w += delta / (1 + damping * F) * (|w| g / |g| +
    noise * n)``, with ``g`` the gradient of the cross-entropy over the classes that compete and ``n`` standard normal,
    both the same on all processes; then comes the step of the user and of the methods beside it. At a task's end ``F
    <- decay * F + F_task``, the mean of ``p(y | x) (d log p(y | x))^2`` over its samples in eval mode on the evaluation
    transform (the official code: in training mode with batches of one). Batch norm's statistics see the batch once. It
    improves other methods (in the paper replay): put it beside ``ExperienceReplay`` or ``DERPlusPlus``. Works on any
    module whose ``forward`` returns the logits; needs task ends. A step makes one more forward and backward pass.

    Args:
        delta: Length of the move relative to the weight, at least 0; with 0 it is the method beside it.
        noise: Standard deviation of ``n`` before ``delta``, at least 0.
        damping: Weight of the Fisher information, at least 0.
        decay: Of earlier tasks' Fisher information, in [0, 1]. All four are the official code's.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.Refresh"
    boundaries: ClassVar[Boundaries] = "taken"
    constrains: ClassVar[bool] = True

    delta: float = at_least(0, default=1e-5)
    noise: float = at_least(0, default=1e-3)
    damping: float = at_least(0, default=1e-3)
    decay: float = fraction(default=1e-5)

    def build(self, pl_module: Any, info: Any) -> UnlearningSteps:
        """The Fisher information of the weights that are trained when the method is attached."""
        return UnlearningSteps(pl_module, self.delta, self.noise, self.damping, self.decay)
