"""The ways in which APER tunes a ViT in its first task."""

from __future__ import annotations

import copy
from typing import Any, Literal

from torch import nn

from lightning_cl.nn.adapters import (
    Adapters,
    fold_paths,
    freeze_backbone,
    loop_paths,
    tokens_in_blocks,
    tune_frozen_vit,
)

Tuning = Literal["adapter", "ssf", "vpt_shallow", "vpt_deep", "finetune"]


def tuned(vit: Any, method: Any) -> tuple[Adapters, nn.Module | None]:
    """What is trained in a live ViT, and a frozen copy of the ViT where all its weights are."""
    if method.tuning == "finetune":
        return Adapters({}), _whole(vit)
    if method.tuning in ("adapter", "ssf"):
        return tune_frozen_vit(vit, method.tuning, method.rank, method.scale, method.dropout), None
    adapters = tokens_in_blocks(vit, 1, method.tokens, deep=method.tuning == "vpt_deep")
    freeze_backbone(vit)
    return adapters, None


def several_paths(vit: Any, adapters: Adapters, frozen: nn.Module | None, method: Any) -> None:
    """Let a ViT answer for the frozen and the tuned network: in one doubled batch, or one after the other."""
    if method.tuning in ("adapter", "ssf"):
        fold_paths(vit, adapters)
    else:  # sequences of other lengths, or other weights
        loop_paths(vit, adapters, frozen)


def _whole(vit: Any) -> nn.Module:
    """A frozen copy without the head, whose hooks hold the whole module."""
    head, vit.head = vit.head, nn.Identity()
    try:
        frozen: nn.Module = copy.deepcopy(vit)
    finally:
        vit.head = head
    freeze_backbone(frozen, ())
    return frozen
