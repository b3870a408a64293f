"""Fit a head, or a few scalars, on features after a task's epochs, with an optimiser of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Features and targets of an epoch: drawn anew, or the same in all of them.
Samples = tuple[Tensor, Tensor] | Callable[[], tuple[Tensor, Tensor]]


def fit_head(
    head: Callable[[Tensor], Tensor],
    samples: Samples,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    *,
    epochs: int,
    batch_size: int,
    schedule: Any = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> None:
    """Minimise the loss of a head over ``epochs`` shuffled passes, in place.

    With the same samples and the same generator it ends in the same bits on every process, and PyTorch's own
    generators end where they were. Take the samples of a task from :meth:`TaskData.features`, whose batches are those
    of all processes.

    Args:
        head: ``(B, D)`` features to ``(B, C)`` logits, made of what ``optimizer`` holds. Give ``head.forward`` of a
            layer, or its hooks, with them class masks and methods, take part.
        samples: ``(N, D)`` features and ``(N,)`` targets; or what draws them at the start of an epoch.
        optimizer: Of the parameters that are fitted; no other parameter keeps a gradient of this.
        generator: On the CPU; shuffles, and seeds what ``head`` draws by itself, as dropout.
        epochs: At least 0.
        batch_size: Samples of a step, above 0.
        schedule: A scheduler of ``optimizer`` that steps after each epoch.
        loss: Of logits and targets, a scalar.
    """
    fitted = [p for group in optimizer.param_groups for p in group["params"]]
    devices = {p.device for p in fitted if p.device.type == "cuda"}
    with torch.enable_grad(), torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(generator.initial_seed())  # `torch.manual_seed` would seed every GPU
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(generator.initial_seed())
        for _ in range(epochs):
            features, targets = samples() if callable(samples) else samples
            order = torch.randperm(len(targets), generator=generator).to(targets.device)
            for rows in order.split(batch_size):
                gradients = torch.autograd.grad(loss(head(features[rows]), targets[rows]), fitted, allow_unused=True)
                for parameter, gradient in zip(fitted, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
            if schedule is not None:
                schedule.step()
    optimizer.zero_grad()
