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
    that part, and a plain step on the others. Buffers stay as they are. Two more passes. With ``precision="16-mixed"``
    both gradients are taken of the scaled loss, as that of the step is; where one overflows all differences are 0.

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
    found = {name: second[name] - first[name] for name in here}
    return found if loss_scaler(module.trainer) is None else _or_zero(found)


def loss_scaler(trainer: Any) -> Any:
    """What scales the loss so that small gradients of half precision are not lost; ``None``: nothing does."""
    return getattr(trainer.precision_plugin, "scaler", None)


def _or_zero(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, or zeros if one value among them is not finite; the device is not asked."""
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).all()
    return {name: torch.where(finite, tensor, 0.0) for name, tensor in tensors.items()}


def _gradients(
    step: Step, loss: PartialLoss, weights: dict[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    trainer = step.module.trainer
    scaler = loss_scaler(trainer)
    with torch.enable_grad():
        value = loss({**weights, **{name: buffer.clone() for name, buffer in buffers.items()}})
        scaled = value if scaler is None else scaler.scale(value)
        found = torch.autograd.grad(scaled, list(weights.values()), allow_unused=True)
    share = trainer.datamodule.train_weight(trainer.fit_loop.batch_idx) / trainer.world_size
    if scaler is not None:
        share = share / scaler.scale(torch.ones_like(value))
    return {
        name: all_sum(torch.zeros_like(weight) if gradient is None else share * gradient)
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }
