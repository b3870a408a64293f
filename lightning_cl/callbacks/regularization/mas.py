"""Memory aware synapses: weights count by how strongly the model's answers depend on them, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import choice, fraction
from lightning_cl.callbacks.regularization.anchor import QuadraticAnchor, logits_of, mean_over_task
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.fisher import per_sample_sum
from lightning_cl.training import TaskData

Granularity = Literal["sample", "batch"]


class SensitivityPenalty(QuadraticAnchor):
    """The sensitivity of the squared length of the logits as importance."""

    def __init__(self, module: nn.Module, strength: float, decay: float, granularity: Granularity) -> None:
        super().__init__(module, 2 * strength)  # its penalty has no factor 1/2
        self.decay, self.granularity = decay, granularity

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Add the task's importance, and move the anchor to the present weights."""
        found = sensitivity(module, data, self.granularity)
        for name, kept in self.importance.items():
            kept.mul_(self.decay).add_(found[name])
        super().end_task(module, data)


def sensitivity(module: Any, data: TaskData, granularity: Granularity) -> dict[str, Tensor]:
    """``|d |z|^2 / d w|``, the mean over a task's samples; ``z`` are the raw logits of the classes seen."""
    logits, seen = logits_of(module), module.continual.mask.eval_allowed.nonzero().flatten()

    def length(weights: Mapping[str, Tensor], inputs: Any, _: Tensor) -> Tensor:
        return logits(weights, inputs).index_select(1, seen).square().sum()

    def sums(weights: Mapping[str, Tensor], inputs: Any, targets: Tensor) -> Mapping[str, Tensor]:
        if granularity == "batch":
            return _of_batch(weights, length, inputs, targets)
        return per_sample_sum(length, weights, inputs, targets, of=torch.abs) if len(targets) else {}

    found = mean_over_task(module, data, sums)
    shares = module.trainer.world_size if granularity == "batch" else 1  # all processes have the whole batch's
    return {name: value / shares for name, value in found.items()}


def _of_batch(weights: Mapping[str, Tensor], length: Any, inputs: Any, targets: Tensor) -> dict[str, Tensor]:
    """The absolute gradient of the sum over a whole batch, that of all processes."""
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    found: tuple[Tensor | None, ...] = (None,) * len(leaves)
    if len(targets):
        with torch.enable_grad():
            value = length(leaves, inputs, targets)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return {name: all_sum(torch.zeros_like(leaf) if g is None else g).abs() for (name, leaf), g in pairs}


@dataclass(eq=False)
class MAS(RegularizedMethod):
    """Memory aware synapses (Aljundi et al., ECCV 2018, arXiv:1711.09601).

    Adds ``strength * sum_k F_k (w_k - a_k)^2`` to the loss, as its gradient; ``a`` are the weights at the end of the
    last task, ``F <- decay * F + mean_x |d |z(x)|^2 / d w|`` with the logits ``z`` of the classes seen so far, in eval
    mode. Labels are not read. Works on any module with a class head; needs the end of a task; keeps two copies of the
    trained weights and no sample.

    Args:
        strength: ``lambda``, at least 0; with 0 it is plain fine-tuning. 1 is the official code's.
        decay: Of the importance of earlier tasks at each task's end, in [0, 1]; 1 sums them up, as the official code.
        granularity: ``"sample"``: absolute values of each sample's gradient, as defined; ``"batch"``: of a batch's, one
            backward pass, but gradients of opposite sign cancel, as in several code bases.

    Raises:
        ValueError: If a number is out of its range or a choice unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.MAS"
    boundaries: ClassVar[Boundaries] = "taken"

    decay: float = fraction(default=1.0)
    granularity: Granularity = choice(Granularity, default="sample")

    def build(self, pl_module: Any, info: Any) -> SensitivityPenalty:
        """Anchor and importance of the weights that are trained when the method is attached."""
        return SensitivityPenalty(pl_module, self.strength, self.decay, self.granularity)
