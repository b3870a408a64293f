"""CUBER-style steps: earlier tasks' directions are left alone, unless a new task pulls where an earlier one would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.gradients.gpm import GPM, ProjectedSteps
from lightning_cl.callbacks.regularization.anchor import logits_of, mean_over_task
from lightning_cl.nn.input_grams import input_width
from lightning_cl.nn.owned_subspace import OwnedSubspace
from lightning_cl.nn.weights import trained
from lightning_cl.training import TaskData


class TransferSteps(ProjectedSteps):
    """Bases with owners, and what each task does with those of earlier ones."""

    def __init__(self, module: Any, tasks: int, method: CUBER) -> None:
        self.tasks, self.method = tasks, (method.likeness, method.sign, method.strength)
        super().__init__(module, method.energy, method.growth)

    def new_memory(self, layer: nn.Module) -> OwnedSubspace:
        """An empty basis."""
        weight = layer.weight
        assert isinstance(weight, Tensor)
        return OwnedSubspace(len(weight), input_width(layer), self.tasks)

    def memory(self, name: str) -> OwnedSubspace:
        """Of a layer."""
        memory = super().memory(name)
        assert isinstance(memory, OwnedSubspace)
        return memory

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """In the first step of a task decide what is free; in every step pull that back to where it was."""
        weights, earlier = trained(module, optimizer), self.finished.value
        likeness, sign, strength = self.method
        for name in self.layers if earlier else ():
            weight, memory = weights.get(f"{name}.weight"), self.memory(name)
            if weight is None or weight.grad is None:
                continue
            if memory.decided.value < earlier:
                memory.decide(weight.grad, earlier, likeness, sign)
            if strength:
                weight.grad.add_(memory.away(weight.detach()), alpha=strength)
        super().edit_gradients(module, optimizer)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Add the directions of the task's inputs, and note where the weights and the gradient are."""
        gradients = mean_gradients(module, data)
        super().end_task(module, data)
        for name in self.layers:
            weight = module.get_submodule(name).weight.detach()
            self.memory(name).keep(weight, gradients[f"{name}.weight"], self.finished.value - 1)


def mean_gradients(module: Any, data: TaskData) -> dict[str, Tensor]:
    """Of the mean cross-entropy over the task's samples, in eval mode."""
    logits = logits_of(module)

    def sums(weights: Any, inputs: Any, targets: Tensor) -> dict[str, Tensor]:
        if not len(targets):
            return {}
        with torch.enable_grad():
            leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            loss = F.cross_entropy(logits(leaves, inputs), targets, reduction="sum")
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}

    return mean_over_task(module, data, sums)


@dataclass(eq=False)
class CUBER(GPM):
    """Backward knowledge transfer, style (after CUBER; Lin et al., NeurIPS 2022, arXiv:2211.00789).

    As :class:`GPM`, but layer by layer the directions ``U_j`` that task ``j`` added are free for a new task whose first
    step's gradient ``g`` has ``|g U_j| >= likeness |g|`` and ``<g_j, g> >= sign |g_j| |g|``, with ``g_j`` the gradient
    of task ``j`` at its own end: then the new task pulls the weights where task ``j`` would, too. Along free directions
    ``strength / 2 * |(W - W_j) U_j|^2`` is added to the loss, as its gradient. No code of the paper is public: in this
    style and not a reproduction. Where ``g`` lies in ``U_j`` and does not agree, the paper learns a scale matrix of its
    own for the task, for which the task's identity is needed; here the step is projected. Works on modules of
    ``nn.Linear`` and ``nn.Conv2d`` without groups; needs the end of a task and, for ``g_j``, a class head; makes two
    passes over a task's data at its end; keeps a basis and, for each task, a gradient of each layer, and no sample.
    Batch norm's running statistics still move: freeze them.

    Args:
        likeness: Share of the new gradient within a task's directions from which on they may be free, at least 0;
            above 1 none ever is, and the method is GPM.
        sign: Least cosine of the two gradients, in [-1, 1].
        strength: Of the pull along free directions, at least 0; the default is of our own.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer whose steps can be projected.
    """

    state_key: ClassVar[str] = "lightning_cl.CUBER"

    likeness: float = at_least(0, default=0.5)
    sign: float = at_least(-1, default=0.0)
    strength: float = at_least(0, default=1.0)

    def build(self, pl_module: Any, info: Any) -> TransferSteps:
        """An empty basis for every layer."""
        return TransferSteps(pl_module, info.num_tasks, self)
