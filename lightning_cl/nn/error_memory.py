"""Memories of a model's recent errors, by which its answers to similar samples are corrected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def nearest_error(distances: Tensor, errors: Tensor, topk: int, temperature: float) -> Tensor:
    """``(B, C)`` mean error of the ``topk`` nearest of ``N`` stored samples, with ``softmax(-d / temperature)`` shares.

    Args:
        distances: ``(B, N)``; infinite for a place that is empty.
        errors: ``(N, C)``.
        topk: At least 1; all are taken where there are fewer.
        temperature: Above 0.
    """
    best = (-distances).topk(min(topk, distances.shape[1]), dim=1)
    shares = (best.values / temperature).softmax(1).nan_to_num(0.0)  # nothing is stored
    return (shares[..., None] * errors[best.indices]).sum(1)


class NearestErrors(nn.Module):
    """The last ``capacity`` samples' features, of unit length, and errors.

    Args:
        width: Of features, ``D``.
        num_classes: Of errors, ``C``.
        capacity: Samples, first in, first out.
        topk: How many nearest are asked.
        temperature: Of their shares.
    """

    keys: Tensor
    errors: Tensor
    filled: Tensor

    def __init__(self, width: int, num_classes: int, capacity: int, topk: int, temperature: float) -> None:
        super().__init__()
        self.topk, self.temperature = topk, temperature
        self.growing = ("errors",)
        self.register_buffer("keys", torch.zeros(capacity, width))
        self.register_buffer("errors", torch.zeros(capacity, num_classes))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def write(self, features: Tensor, errors: Tensor) -> None:
        """Store ``(B, D)`` features and ``(B, C)`` errors, over the oldest."""
        capacity = len(self.keys)
        features, errors = features[-capacity:], errors[-capacity:]
        places = (self.filled + torch.arange(len(features), device=self.keys.device)) % capacity
        self.keys[places] = F.normalize(features, dim=1).to(self.keys)
        self.errors[places] = errors.to(self.errors)
        self.filled += len(features)

    def read(self, features: Tensor) -> Tensor:
        """``(B, C)`` expected error; 0 while nothing is stored."""
        distances = torch.cdist(F.normalize(features, dim=1).to(self.keys), self.keys)
        empty = torch.arange(len(self.keys), device=self.keys.device) >= self.filled
        return nearest_error(distances.masked_fill(empty, torch.inf), self.errors, self.topk, self.temperature)


class SketchedErrors(nn.Module):
    """Decayed sums of errors in ``tables`` hash tables of ``2 ** bits`` buckets, by signs of random projections.

    Args:
        width: Of features, ``D``.
        num_classes: Of errors, ``C``.
        tables: ``L``.
        bits: Projections of a table, ``K``.
        decay: Share ``g`` that a bucket forgets with every sample that falls into it.
    """

    planes: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, width: int, num_classes: int, tables: int, bits: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        generator = torch.Generator().manual_seed(0)
        self.growing = ("sums",)
        self.register_buffer("planes", torch.randn(tables, width, bits, generator=generator))
        self.register_buffer("sums", torch.zeros(tables, 2**bits, num_classes))
        self.register_buffer("counts", torch.zeros(tables, 2**bits))

    def buckets(self, features: Tensor) -> Tensor:
        """``(L, B)`` places of ``(B, D)`` features."""
        signs = features.to(self.planes) @ self.planes > 0  # (L, B, K)
        powers = 2 ** torch.arange(signs.shape[-1], device=signs.device)
        return (signs * powers).sum(-1)

    def write(self, features: Tensor, errors: Tensor) -> None:
        """Add ``(B, C)`` errors to the buckets of ``(B, D)`` features, one sample after the other."""
        tables = torch.arange(len(self.sums), device=self.sums.device)
        for places, error in zip(self.buckets(features).T, errors.to(self.sums), strict=True):
            self.sums[tables, places] = (1 - self.decay) * self.sums[tables, places] + error
            self.counts[tables, places] = (1 - self.decay) * self.counts[tables, places] + 1

    def read(self, features: Tensor) -> Tensor:
        """``(B, C)`` sums over counts of all tables; 0 where all buckets are empty."""
        places = self.buckets(features)
        tables = torch.arange(len(self.sums), device=self.sums.device)[:, None]
        sums, counts = self.sums[tables, places].sum(0), self.counts[tables, places].sum(0)
        return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1e-12)[:, None], 0.0)
