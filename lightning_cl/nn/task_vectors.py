"""Merge what two tasks changed of the same weights (task arithmetic)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

MergeRule = Literal["duet", "average", "ties"]


def old_share(old: Tensor, new: Tensor, base: float, gain: float) -> Tensor:
    """Share of the old task vector in DuET's merge (arXiv:2506.21260): larger where it is the longer one.

    ``base + gain tanh(p)`` with ``p = (|old| - |new|) / |old + new|``; the new one has the rest.

    Args:
        old: What earlier tasks changed of one weight, any shape.
        new: What the last task left of it, from the same start.
        base: For vectors of the same length.
        gain: Largest way from ``base``, at least 0.

    Returns:
        A number in ``[base - gain, base + gain]``, without dimensions; ``base`` where nothing was changed.
    """
    tiny = torch.finfo(old.dtype).tiny
    gap = (old.norm() - new.norm()) / (old + new).norm().clamp_min(tiny)
    return base + gain * torch.tanh(gap)


def ties(vectors: Tensor, keep: float) -> Tensor:
    """Merge task vectors by trimming, electing signs and averaging what agrees (TIES, arXiv:2306.01708).

    Args:
        vectors: ``(T, ...)`` of the same weight.
        keep: Share of the elements of each vector that are kept, those of the largest magnitude, in (0, 1].

    Returns:
        ``(...)``, the mean over the kept elements whose sign is that of their sum; 0 where there are none.
    """
    flat = vectors.reshape(len(vectors), -1)
    count = max(round(keep * flat.shape[1]), 1)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen.scatter_(1, flat.abs().topk(count, dim=1).indices, True)
    trimmed = flat * chosen
    agrees = (trimmed.sign() == trimmed.sum(dim=0).sign()) & (trimmed != 0)
    return ((trimmed * agrees).sum(dim=0) / agrees.sum(dim=0).clamp_min(1)).view(vectors.shape[1:])


def away_from(direction: Tensor, way: Tensor) -> Tensor:
    """Gradient by ``way`` of ``sum relu(-way * direction)``: 0 where both have the same sign.

    Args:
        direction: How a weight moved in the task before.
        way: How it has moved in the present one.
    """
    return torch.where(way * direction < 0, -direction, 0)
