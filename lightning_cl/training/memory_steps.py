"""Gradients and optimiser steps on samples of the memory alone, the same on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from lightning_cl.nn.cutmix import cutmix, draw_cutmix
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.gradients import flat_or_zero, give_gradients
from lightning_cl.training.memory import Drawn
from lightning_cl.training.step import Step

#: The mean loss of a module over the rows of a batch from the memory.
MemoryLoss = Callable[[Any, Drawn], Tensor]


def cross_entropy(module: Any, drawn: Drawn) -> Tensor:
    """Of the module's masked logits."""
    answers, _ = Step(module, None).learn(drawn.inputs)
    return F.cross_entropy(answers, drawn.labels)


def cutmix_loss(module: Any, slots: Tensor, share: float, generator: torch.Generator) -> MemoryLoss:
    """Cross-entropy on the samples in ``(n,)`` slots, in a ``share`` of the calls on images mixed with one another.

    Args:
        module: The LightningModule.
        slots: Those that the loss will be asked for, in one pass.
        share: In [0, 1].
        generator: On the CPU, the same on all processes.
    """
    if torch.rand((), generator=generator) >= share:
        return cross_entropy
    kept, centre = draw_cutmix(generator)
    others = module.read(slots[torch.randperm(len(slots), generator=generator)])

    def mixed(module: Any, drawn: Drawn) -> Tensor:
        if not isinstance(drawn.inputs, Tensor) or drawn.inputs.ndim != 4:  # no images
            return cross_entropy(module, drawn)
        images, own = cutmix(drawn.inputs, others.inputs, kept, centre)
        answers, _ = Step(module, None).learn(images)
        first, second = F.cross_entropy(answers, drawn.labels), F.cross_entropy(answers, others.labels)
        return own * first + (1 - own) * second

    return mixed


def memory_gradient(
    module: Any, slots: Tensor, weights: list[Tensor], rows: int, loss: MemoryLoss = cross_entropy
) -> Tensor:
    """``(D,)`` gradient of the mean loss over samples of the memory, the same on all processes.

    Args:
        module: The LightningModule, in training mode.
        slots: ``(n,)`` of the memory.
        weights: By which to differentiate.
        rows: Samples of a pass, over all processes.
        loss: Mean over the rows that it is given.
    """
    total = torch.zeros(sum(weight.numel() for weight in weights), device=weights[0].device, dtype=weights[0].dtype)
    for some in slots.split(rows):
        drawn = module.read(some)
        with torch.enable_grad(), module.trainer.precision_plugin.train_step_context():
            value = loss(module, drawn)
        found: Sequence[Tensor | None] = [None] * len(weights)
        if value.requires_grad:  # not where a method has nothing trained any more
            found = torch.autograd.grad(value, weights, allow_unused=True)
        total += drawn.part * len(some) / len(slots) * flat_or_zero(found, weights)
    return all_sum(total)


def memory_step(module: Any, optimizer: Optimizer, slots: Tensor, loss: MemoryLoss = cross_entropy) -> None:
    """One step of another optimiser on the samples in ``(n,)`` slots; protected rows stay, and no hook is called."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    give_gradients(weights, memory_gradient(module, slots, weights, len(slots), loss))
    optimizer.step()
    optimizer.zero_grad()
    module.restore_protected()


def over_memory(module: Any, values: Callable[[Drawn], Tensor]) -> Tensor:
    """``(n, ...)`` values of all samples of the memory, as an evaluation sees these, in the order of their slots.

    They are the same on all processes, each of which computes a share. It is not for an empty memory.

    Args:
        module: The LightningModule.
        values: ``(b, ...)`` of the rows that it is given; without gradient.
    """
    stream, memory, parts = module.trainer.datamodule, module.continual.memory, []
    view, stream.train_view = stream.train_view, "eval"
    try:
        for slots in memory.buffer.used.split(memory.batch_size):
            drawn = module.read(slots)
            own = values(drawn)
            found = own.new_zeros(len(slots), *own.shape[1:])
            found[drawn.start : drawn.start + drawn.real] = own[: drawn.real]
            parts.append(all_sum(found))
    finally:
        stream.train_view = view
    return torch.cat(parts)


def tune_on_memory(module: Any, weights: Sequence[Tensor], steps: int, lr: float) -> None:
    """Steps of SGD with momentum 0.9 and a cosine from ``lr`` to 0 on random batches of the memory.

    Args:
        module: The LightningModule, in training mode; nothing is done while its memory is empty.
        weights: What is trained; protected rows of it stay.
        steps: How many; each draws a batch of the memory's size anew.
        lr: Of the first step.
    """
    memory = module.continual.memory
    optimizer = torch.optim.SGD(weights, lr=lr, momentum=0.9)
    for step in range(steps if len(memory.buffer) else 0):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        memory_step(module, optimizer, memory.buffer.draw(memory.batch_size))
