"""Find and undo side effects of an evaluation on weights, buffers, random generators and a module's attributes."""

from __future__ import annotations

import random
from collections import defaultdict
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_cl.namespace import LightningModule

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CONTAINERS = (list, dict, set, defaultdict)
_OF_LIGHTNING = frozenset(vars(LightningModule()))


def fingerprints(module: nn.Module) -> dict[str, Tensor]:
    """One number for each weight and saved buffer, metrics left out; on their devices, without a host sync."""
    found: dict[str, Tensor] = {}
    for prefix, part in module.named_modules():
        if isinstance(part, Metric):
            continue
        unsaved, own = part._non_persistent_buffers_set, {"recurse": False, "remove_duplicate": False}
        saved = ((name, tensor) for name, tensor in part.named_buffers(**own) if name not in unsaved)
        for name, tensor in (*part.named_parameters(**own), *saved):
            found[f"{prefix}.{name}".lstrip(".")] = fingerprint(tensor)
    return found


def moved_names(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Names whose fingerprints differ, or that are only on one side."""
    common = [name for name in before if name in after]
    moved = [name for name in {**before, **after} if name not in common]
    if common:
        device = before[common[0]].device  # one copy to the host, not one for each tensor
        a, b = (torch.stack([side[name].to(device) for name in common]) for side in (before, after))
        moved += [common[place] for place in (a != b).nonzero().flatten().tolist()]
    return moved


def generators_moved(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Which of the random generators have drawn; see :func:`~lightning_cl.datamodules.resume.random_states`."""
    return [name for name, state in before.items() if not _same(state, after[name])]


def collected(module: LightningModule) -> dict[str, Any]:
    """The attributes that the module's own code set, lists and the like with their contents: see :func:`put_back`."""
    own = {name: value for name, value in vars(module).items() if name not in _OF_LIGHTNING}
    return {name: (value, copy(value) if type(value) in _CONTAINERS else None) for name, value in own.items()}


def put_back(module: LightningModule, before: dict[str, Any]) -> None:
    """Undo what was collected since, as outputs in a list and counters; attributes that are new stay."""
    for name, (value, contents) in before.items():
        module.__dict__[name] = value
        if type(value) is list:
            value[:] = contents
        elif type(value) in _CONTAINERS:
            value.clear()
            value.update(contents)


def draw(device: torch.device) -> None:
    """Move every random generator."""
    torch.rand(1)
    torch.rand(1, device=device)
    np.random.rand()
    random.random()


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def row_fingerprints(tensor: Tensor) -> Tensor:
    """``(R,)`` int64, one for each row of a tensor's first dimension, of its very bits; on the tensor's device."""
    values = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    rows = torch.atleast_1d(values)[:, None].flatten(1).contiguous()
    sums: Tensor = rows.view(_BITS[rows.element_size()]).sum(dim=1, dtype=torch.int64)
    return sums


def fingerprint(tensor: Tensor) -> Tensor:
    """One int64, of a tensor's very bits and the place of its rows; no host sync."""
    rows = row_fingerprints(tensor)
    whole: Tensor = (rows * (2 * torch.arange(len(rows), device=rows.device) + 1)).sum()
    return whole
