"""The traces that an evaluation leaves: weights, saved buffers and random generators before and after it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_cl.metrics.fingerprints import fingerprint


def fingerprints(module: nn.Module) -> dict[str, Tensor]:
    """One number for each weight and saved buffer, metrics left out; on their devices, without a host sync."""
    found: dict[str, Tensor] = {}
    for prefix, part in module.named_modules():
        if isinstance(part, Metric):
            continue
        saved = {n: b for n, b in part._buffers.items() if n not in part._non_persistent_buffers_set}
        for name, tensor in (*part._parameters.items(), *saved.items()):
            if tensor is not None:
                found[f"{prefix}.{name}".lstrip(".")] = fingerprint(tensor)
    return found


def moved_names(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Names whose fingerprints differ, or that are only on one side."""
    common = [name for name in before if name in after]
    moved = [name for name in {**before, **after} if name not in common]
    if common:
        stacked = [torch.stack([side[name].to("cpu") for name in common]) for side in (before, after)]
        moved += [common[place] for place in (stacked[0] != stacked[1]).nonzero().flatten().tolist()]
    return moved


def generators_moved(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Which of the random generators have drawn; see :func:`~lightning_cl.datamodules.resuming.random_states`."""
    return [name for name, state in before.items() if not _same(state, after[name])]


def draw(device: torch.device) -> None:
    """Move every random generator."""
    torch.rand(1)
    torch.rand(1, device=device)
    np.random.rand()
    random.random()


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)
