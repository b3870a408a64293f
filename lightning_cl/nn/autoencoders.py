"""Small autoencoders of a network's features, one for each task: a code of what a task needs, and a gate to it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureAutoencoders(nn.Module):
    """Under-complete autoencoders with one hidden layer; all of them are buffers, and never in a training step.

    Features are standardised with the task's mean and standard deviation and squashed into (0, 1) by a sigmoid; the
    reconstruction is a sigmoid of a linear map of the code.

    Args:
        num_tasks: Room for so many, ``T``.
        width: ``D`` features.
        code: Hidden units, ``K``.
        device: Of the buffers.
        hidden: ``torch.sigmoid`` or ``torch.relu``: what makes the code.
    """

    mean: Tensor
    deviation: Tensor
    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor

    growing = ("mean", "deviation", "encoder", "encoder_bias", "decoder", "decoder_bias")

    def __init__(self, num_tasks: int, width: int, code: int, device: Any = None, hidden: Any = torch.sigmoid) -> None:
        super().__init__()
        self.hidden = hidden
        shapes = [(width,), (width,), (code, width), (code,), (width, code), (width,)]
        for name, shape in zip(self.growing, shapes, strict=True):
            self.register_buffer(name, torch.zeros(num_tasks, *shape, device=device))

    def squashed(self, slot: int, features: Tensor) -> Tensor:
        """``(B, D)`` in (0, 1): what an autoencoder is given, and is to give."""
        return torch.sigmoid((features.to(self.mean.dtype) - self.mean[slot]) / self.deviation[slot])

    def code(self, slot: int, features: Tensor) -> Tensor:
        """``(B, K)`` the hidden units of a task's autoencoder."""
        given: Tensor = F.linear(self.squashed(slot, features), self.encoder[slot], self.encoder_bias[slot])
        found: Tensor = self.hidden(given)
        return found

    def error(self, slot: int, features: Tensor) -> Tensor:
        """``(B,)`` mean squared error of a task's reconstruction."""
        decoded = torch.sigmoid(F.linear(self.code(slot, features), self.decoder[slot], self.decoder_bias[slot]))
        return (decoded - self.squashed(slot, features)).square().mean(1)

    @torch.enable_grad()
    def fit(
        self, slot: int, features: Tensor, generator: torch.Generator, steps: int, lr: float, batch_size: int = 64
    ) -> float:
        """Fit a task's autoencoder by Adam; the mean error at the end.

        Args:
            slot: The task's.
            features: ``(N, D)``, the same on all processes.
            generator: On the CPU, the same on all processes: first weights and batches.
            steps: At least 1.
            lr: Above 0.
            batch_size: Rows of a step.
        """
        features = features.detach().to(self.mean)
        self.mean[slot] = features.mean(0)
        self.deviation[slot] = features.std(0, correction=0).clamp_min(1e-6)
        names = self.growing[2:]
        for name in names:
            bank = getattr(self, name)
            bound = 1 / math.sqrt(self.encoder.shape[2] if name.startswith("encoder") else self.encoder.shape[1])
            bank[slot] = torch.empty(bank[slot].shape).uniform_(-bound, bound, generator=generator)
        learned = {name: getattr(self, name)[slot].clone().requires_grad_() for name in names}
        wanted = self.squashed(slot, features)
        optimizer = torch.optim.Adam(learned.values(), lr)
        for _ in range(steps):
            rows = torch.randint(len(wanted), (min(batch_size, len(wanted)),), generator=generator)
            given = wanted[rows.to(wanted.device)]
            hidden = self.hidden(F.linear(given, learned["encoder"], learned["encoder_bias"]))
            loss = F.mse_loss(torch.sigmoid(F.linear(hidden, learned["decoder"], learned["decoder_bias"])), given)
            for part, gradient in zip(learned.values(), torch.autograd.grad(loss, list(learned.values())), strict=True):
                part.grad = gradient
            optimizer.step()
        for name, value in learned.items():
            getattr(self, name)[slot] = value.detach()
        return float(self.error(slot, features).mean())


def relatedness(error: float, own: float) -> float:
    """``1 - (error - own) / own`` of another task's autoencoder on a task's features, at most about 1."""
    return 1 - (error - own) / own if own else float(error <= own)
