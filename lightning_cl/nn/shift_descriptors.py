"""Notice features unlike all known ones: small autoencoders, each with a record of its errors (SEMA)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ShiftDescriptors(nn.Module):
    """An autoencoder for each slot, linear and in buffers, trained by a step of its own (SEMA, arXiv:2403.18886).

    Args:
        slots: Most descriptors that there will be.
        width: Size of a feature, ``D``.
        hidden: Size of what it is squeezed through.
        window: Errors of the latest samples that a descriptor records.
    """

    weights: Tensor
    velocity: Tensor
    records: Tensor
    recorded: Tensor
    growing = ("weights", "records", "recorded")

    def __init__(self, slots: int, width: int, hidden: int = 128, window: int = 500) -> None:
        super().__init__()
        self.shapes = [(hidden, width), (hidden,), (width, hidden), (width,)]
        layers = [(nn.Linear(width, hidden), nn.Linear(hidden, width)) for _ in range(slots)]
        flat = [torch.cat([p.detach().flatten() for layer in pair for p in layer.parameters()]) for pair in layers]
        self.register_buffer("weights", torch.stack(flat))
        self.register_buffer("velocity", torch.zeros_like(flat[0]))
        self.register_buffer("records", torch.zeros(slots, window))
        self.register_buffer("recorded", torch.zeros(slots, dtype=torch.long))

    def errors(self, features: Tensor, weights: Tensor) -> Tensor:
        """``(B,)`` mean squared errors of ``(B, D)`` features, by the ``(N,)`` weights of one autoencoder."""
        parts = weights.split([torch.Size(shape).numel() for shape in self.shapes])
        encode, shift, decode, back = (part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))
        rebuilt = F.linear(F.linear(features, encode, shift), decode, back)
        return (rebuilt - features).square().mean(dim=1)

    @torch.no_grad()
    def distances(self, features: Tensor, slots: Sequence[int]) -> Tensor:
        """``(k,)`` mean over the features of ``|error - mean| / std`` by each slot's record; 0 for one of 2 or fewer.

        Args:
            features: ``(B, D)``.
            slots: ``k`` of them.
        """
        found = []
        for slot in slots:
            count = self.recorded[slot].clamp_max(self.records.shape[1])
            inside = torch.arange(self.records.shape[1], device=count.device) < count
            mean = self.records[slot].mul(inside).sum() / count.clamp_min(1)
            spread = (self.records[slot] - mean).mul(inside).square().sum() / (count - 1).clamp_min(1)
            away = (self.errors(features.to(self.weights), self.weights[slot]) - mean).abs().mean()
            found.append(torch.where(count > 2, away / spread.sqrt().clamp_min(1e-12), 0.0))
        return torch.stack(found)

    def start(self) -> None:
        """Begin to train another slot."""
        self.velocity.zero_()

    def learn(self, features: Tensor, slot: int, lr: float, momentum: float = 0.9, decay: float = 5e-4) -> None:
        """Make a step of SGD on the mean error, and record the errors before it.

        Args:
            features: ``(B, D)`` of all processes.
            slot: The one that learns.
            lr: The learning rate.
            momentum: Of SGD.
            decay: Weight decay.
        """
        features = features.detach().to(self.weights)
        with torch.enable_grad():
            weights = self.weights[slot].clone().requires_grad_()
            errors = self.errors(features, weights)
            (gradient,) = torch.autograd.grad(errors.mean(), weights)
        self.velocity.mul_(momentum).add_(gradient).add_(self.weights[slot], alpha=decay)
        self.weights[slot].sub_(self.velocity, alpha=lr)
        self._record(errors.detach(), slot)

    def _record(self, errors: Tensor, slot: int) -> None:
        size = self.records.shape[1]
        end = self.recorded[slot] + len(errors)
        latest = errors[-size:]
        self.records[slot, (end - len(latest) + torch.arange(len(latest), device=end.device)) % size] = latest
        self.recorded[slot] = end

    def fit(self, features: Tensor, slot: int, epochs: int, lr: float, batch_size: int, seed: int) -> None:
        """Train a slot on features that stay as they are; the same on every process.

        Args:
            features: ``(N, D)`` of all processes.
            slot: The one that learns.
            epochs: Shuffled passes.
            lr: The learning rate at first; it falls to 0 as half a cosine.
            batch_size: Of a step.
            seed: Of the order.
        """
        self.start()
        generator = torch.Generator().manual_seed(seed)
        for epoch in range(epochs):
            rate = lr * (1 + float(torch.cos(torch.tensor(torch.pi * epoch / epochs)))) / 2
            for rows in torch.randperm(len(features), generator=generator).split(batch_size):
                self.learn(features[rows.to(features.device)], slot, rate)
