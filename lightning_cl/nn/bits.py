"""Binary masks: learned through a threshold, and kept with one bit for each weight."""

from __future__ import annotations

import torch
from torch import Tensor

_PLACES = 8  # bits in a byte


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of ``hard`` (any dtype), bit for bit, with the gradient of ``soft`` (of the same shape)."""
    return hard.to(soft.dtype) + (soft - soft.detach())


def pack_bits(mask: Tensor) -> Tensor:
    """``(ceil(n / 8),)`` bytes of a boolean mask with ``n`` elements of any shape."""
    flat = mask.flatten().to(torch.uint8)
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % _PLACES)).view(-1, _PLACES)
    return (rows << torch.arange(_PLACES, dtype=torch.uint8, device=mask.device)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The boolean mask of this shape that :func:`pack_bits` packed."""
    places = torch.arange(_PLACES, dtype=torch.uint8, device=packed.device)
    flat = (packed[:, None] >> places & 1).flatten()
    return flat[: torch.Size(shape).numel()].view(shape).bool()
