"""Classify by a Gaussian of each class whose mean is known the better, the more samples were seen."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BayesianPrototypes(nn.Module):
    """Conjugate posteriors of class means and frequencies (ProtoCL, arXiv:2301.01828).

    ``z | y = c ~ N(m_c, noise I)``, and ``m_c ~ N(Q_c / L_c, 1 / L_c I)`` in natural parameters; frequencies have a
    Dirichlet prior. Any order or split of the samples gives the same posterior. Nothing here is trained.

    Args:
        num_classes: ``C``.
        width: Feature size, ``D``.
        noise: Variance of a feature in its class, above 0.
        concentration: Of the Dirichlet prior for each class, above 0.
    """

    natural: Tensor
    precision: Tensor
    counts: Tensor
    growing: tuple[str, ...] = ("natural", "precision", "counts")

    def __init__(self, num_classes: int, width: int, noise: float, concentration: float) -> None:
        super().__init__()
        self.noise, self.concentration = noise, concentration
        self.register_buffer("natural", torch.zeros(num_classes, width, dtype=torch.float64))  # Q
        self.register_buffer("precision", torch.zeros(num_classes, dtype=torch.float64))  # L without the prior's 1
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` ``log p(z, y = c)``, with gradient of the features."""
        precision = 1 + self.precision
        means = (self.natural / precision[:, None]).to(features)
        variance = (1 / precision + self.noise).to(features)
        distance = features.square().sum(1, keepdim=True) - 2 * features @ means.T + means.square().sum(1)
        spread = features.shape[1] * (variance.log() + math.log(2 * math.pi))
        shares = self.concentration + self.counts
        return -0.5 * (distance / variance + spread) + (shares / shares.sum()).log().to(features)

    def sums(self, features: Tensor, targets: Tensor) -> Tensor:
        """``(C, D + 1)`` float64 sums of ``(B, D)`` features of classes ``(B,)``, and how many there are."""
        members = F.one_hot(targets.long(), len(self.counts)).double()
        return torch.cat([members.T @ features.detach().double(), members.sum(0)[:, None]], 1)

    @torch.no_grad()
    def add(self, sums: Tensor) -> None:
        """Count the samples of :meth:`sums`."""
        self.natural += sums[:, :-1] / self.noise
        self.precision += sums[:, -1] / self.noise
        self.counts += sums[:, -1]

    @torch.no_grad()
    def replace(self, sums: Tensor) -> None:
        """Means of the classes in :meth:`sums` from these samples alone; how often a class came is not forgotten."""
        known = sums[:, -1] > 0
        self.natural[known] = sums[known, :-1] / self.noise
        self.precision[known] = sums[known, -1] / self.noise
