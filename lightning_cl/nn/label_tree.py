"""Losses and pseudo-labels where samples have labels of several levels of a label tree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def of_own_level(logits: Tensor, labels: Tensor, level: Tensor) -> Tensor:
    """``(B, C)`` logits in which only classes of a label's own level compete; the others are -inf.

    Args:
        logits: ``(B, C_head)``.
        labels: ``(B,)`` class ids.
        level: ``(C,)`` of each class; further columns compete nowhere.
    """
    own = logits[:, : len(level)]
    return own.masked_fill(level[labels][:, None] != level, -torch.inf)


def child_of_each(levels: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """``(C, C)`` bool: row ``p``, the classes one level below class ``p``; none without levels."""
    children = torch.zeros(num_classes, num_classes, dtype=torch.bool)
    for above, own in pairwise(levels):
        for c, (parent, itself) in enumerate(zip(above, own, strict=True)):
            if itself == c:
                children[parent, c] = True
    return children


def pseudo_labels(
    logits: Tensor, children: Tensor, known: Tensor, threshold: float, least: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Finer labels of samples with a coarse one, by the model's own answers among the children of their class.

    The child with a probability of at least ``threshold`` is taken; else one that is known stays, while it has
    ``least``.

    Args:
        logits: ``(B, C_head)``, -inf for classes that have not come.
        children: ``(B, C)`` bool, the children of each sample's class; none is given before two of them have come.
        known: ``(B,)`` the pseudo-labels so far, -1: none.
        threshold: Above 1: none is given, and none stays.
        least: In [0, 1].

    Returns:
        ``(B,)`` pseudo-labels, -1: none, and ``(B,)`` their probabilities, 0 without.
    """
    own = logits[:, : children.shape[1]]
    among = children & ~own.isneginf()
    several = among.sum(dim=1) > 1
    shares = torch.where(several[:, None], own.masked_fill(~among, -torch.inf), 0.0).softmax(dim=1)
    best = shares.max(dim=1)
    kept = shares.gather(1, known.clamp_min(0)[:, None])[:, 0]
    given = several & (best.values >= threshold)
    stays = several & (known >= 0) & (kept >= least) & ~given & (threshold <= 1)
    labels = torch.where(given, best.indices, torch.where(stays, known, -1))
    return labels, torch.where(given, best.values, torch.where(stays, kept, 0.0))
