"""Hyperdimensional computing: domains as bundles of long random sign vectors, and what is far from all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_cl.nn.counter import Counter
from lightning_cl.nn.precision import wide

#: Samples that are encoded at a time.
ROWS = 256


def bundle(hypervectors: Tensor) -> Tensor:
    """``(D,)`` sum of ``(N, D)`` hypervectors; its sign is like all of them, in whatever order they come."""
    return hypervectors.sum(dim=0)


def signs(values: Tensor) -> Tensor:
    """-1 below 0, else 1."""
    return torch.where(values < 0, -1.0, 1.0).to(values.dtype)


class DomainMemory(nn.Module):
    """A hypervector for each domain that was added, and how alike to it nearly all of its own samples are.

    A feature ``z`` has the hypervector ``sign(P z)`` with random signs ``P``, so that cosines of hypervectors tell the
    angle of features. A domain's is the sign of the sum of those of its samples.

    Args:
        slots: Domains at most, ``T``.
        width: Channels of a feature, ``W``.
        dimension: Of a hypervector, ``D``.
        seed: Of ``P``, which is not saved.
        quantile: Share of a domain's own samples that count as out of distribution.
    """

    projection: Tensor
    sums: Tensor
    thresholds: Tensor

    def __init__(self, slots: int, width: int, dimension: int, seed: int = 0, quantile: float = 0.05) -> None:
        super().__init__()
        self.quantile, self.count = quantile, Counter()
        generator = torch.Generator().manual_seed(seed)
        drawn = signs(torch.rand(dimension, width, generator=generator) - 0.5)
        self.register_buffer("projection", drawn, persistent=False)
        self.register_buffer("sums", torch.zeros(slots, dimension, dtype=torch.long))
        self.register_buffer("thresholds", torch.zeros(slots))
        self.growing = ("sums", "thresholds")

    def encode(self, features: Tensor) -> Tensor:
        """``(N, D)`` hypervectors of ``(N, W)`` features."""
        return signs(features.to(self.projection) @ self.projection.T)

    def similarity(self, features: Tensor) -> Tensor:
        """``(N, count)`` cosines with the domains that were added."""
        domains = signs(self.sums[: self.count.value].to(self.projection))
        return self.encode(features) @ domains.T / self.projection.shape[0]

    def nearest(self, features: Tensor) -> Tensor:
        """``(N,)`` the domain that each feature is most alike to."""
        return self.similarity(features).argmax(dim=1)

    def share_outside(self, features: Tensor) -> float:
        """Share of ``(N, W)`` features less alike to their nearest domain than its threshold; 1 without a domain."""
        if not self.count.value:
            return 1.0
        best = self.similarity(features).max(dim=1)
        return float((best.values < self.thresholds[best.indices]).double().mean())

    @torch.no_grad()
    def add(self, features: Tensor) -> int:
        """Add a domain by the ``(N, W)`` features of its samples; its number.

        For the threshold every sample is compared with the bundle of all others, as if it had been held out.
        """
        place, own = self.count.value, []
        for part in features.split(ROWS):
            self.sums[place] += bundle(self.encode(part).long())
        for part in features.split(ROWS):
            codes = self.encode(part)
            others = signs(self.sums[place].to(codes) - codes)
            own.append((codes * others).mean(dim=1))
        self.thresholds[place] = torch.quantile(wide(torch.cat(own)), self.quantile)
        self.count.set(place + 1)
        return place
