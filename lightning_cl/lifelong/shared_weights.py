"""Weights that no version changes are stored once: what versions keep is the rest of their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def shared_part(checkpoint: Mapping[str, Any], names: frozenset[str]) -> dict[str, Tensor]:
    """The tensors of these names in a checkpoint's ``state_dict``, each with memory of its own."""
    state = checkpoint["state_dict"]
    return {name: state[name].detach().cpu().clone().contiguous() for name in sorted(names) if name in state}


def split(checkpoint: Mapping[str, Any], shared: Mapping[str, Tensor]) -> dict[str, Any]:
    """The checkpoint without the weights that are, bit for bit, those of ``shared``."""
    state: Mapping[str, Any] = checkpoint["state_dict"]
    rest = {n: value for n, value in state.items() if n not in shared or not _equal(value, shared[n])}
    return {**checkpoint, "state_dict": rest}


def joined(checkpoint: Mapping[str, Any], shared: Mapping[str, Tensor]) -> dict[str, Any]:
    """Inverse of :func:`split`, but for the order of the weights."""
    return {**checkpoint, "state_dict": {**shared, **checkpoint["state_dict"]}}


def _equal(value: Any, other: Tensor) -> bool:
    if not isinstance(value, Tensor) or value.dtype != other.dtype or value.shape != other.shape:
        return False
    own = value.detach().cpu().contiguous().reshape(-1)
    return torch.equal(own.view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))
