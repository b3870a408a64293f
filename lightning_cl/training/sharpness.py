"""Sharpness-aware gradients of a part of a batch's loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.weights import trained
from lightning_cl.training.step import Step

#: The part of the loss, of this process, under some weights and buffers by name.
PartialLoss = Callable[[Mapping[str, Tensor]], Tensor]


def uphill_difference(step: Step, loss: PartialLoss, radius: float) -> dict[str, Tensor]:
    """``g(w + radius g(w) / |g(w)|) - g(w)`` by name, with the gradient ``g`` of a part of the loss of all processes.

    Added to the gradient of the whole loss it makes the step of sharpness-aware minimisation (SAM, arXiv:2010.01412) on
    that part, and a plain step on the others. Buffers stay as they are. Two more passes.

    Args:
        step: The training step.
        loss: See :data:`PartialLoss`; differentiable.
        radius: At least 0.
    """
    module: Any = step.module
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers() if not name.startswith("continual.")}
    here = {name: weight.detach().requires_grad_() for name, weight in trained(module).items()}
    first = _gradients(step, loss, here, buffers)
    length = sum(gradient.square().sum() for gradient in first.values())
    scale = radius / torch.as_tensor(length).sqrt().clamp_min(1e-12)
    uphill = {name: (weight + scale * first[name]).detach().requires_grad_() for name, weight in here.items()}
    second = _gradients(step, loss, uphill, buffers)
    return {name: second[name] - first[name] for name in here}


def _gradients(
    step: Step, loss: PartialLoss, weights: dict[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    trainer = step.module.trainer
    with torch.enable_grad():
        value = loss({**weights, **{name: buffer.clone() for name, buffer in buffers.items()}})
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    share = trainer.datamodule.train_weight(trainer.fit_loop.batch_idx) / trainer.world_size
    return {
        name: all_sum(torch.zeros_like(weight) if gradient is None else share * gradient)
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }
