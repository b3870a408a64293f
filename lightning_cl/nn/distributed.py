"""Rows of all processes, in the order of the global batch, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def is_distributed() -> bool:
    """Whether there are processes that reach each other."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def gather_rows(
    features: Tensor, targets: Tensor, longest: int, real: int | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The global batch of features and targets, on every process; without processes the local one.

    Args:
        features: ``(B_local, D)``; local sizes may differ.
        targets: ``(B_local,)``.
        longest: No process has more rows than this (known beforehand, so that nothing waits for the device).
        real: How many local rows count; ``None``: all.

    Returns:
        ``(B, D)`` features, ``(B,)`` targets and ``(B,)`` weights: 0 for rows that do not count, ``None`` if all do.
    """
    if not is_distributed():
        return features, targets, None
    world_size = torch.distributed.get_world_size()
    if world_size == 1:
        return features, targets, None
    packed = features.new_zeros(longest, features.shape[1] + 2, dtype=torch.float64)
    packed[: len(features), :-2] = features.double()
    packed[: len(features), -2] = targets.double()
    packed[: len(features) if real is None else real, -1] = 1.0
    parts = [torch.empty_like(packed) for _ in range(world_size)]
    torch.distributed.all_gather(parts, packed)
    rows = torch.cat(parts)
    return rows[:, :-2].to(features.dtype), rows[:, -2].long(), rows[:, -1]


def send_from_first_process(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values, in place; without processes nothing is done."""
    if is_distributed():
        for tensor in tensors:
            torch.distributed.broadcast(tensor.data, 0)


def global_count(count: int, device: torch.device) -> Tensor:
    """The sum of a number over all processes, as a scalar on ``device``; without processes the number itself."""
    total = torch.full((), count, dtype=torch.long, device=device)
    if is_distributed():
        torch.distributed.all_reduce(total)
    return total


def all_sum(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes; without processes the tensor itself. Carries no gradient."""
    if is_distributed():
        values = values.detach().clone()
        torch.distributed.all_reduce(values)
    return values
