"""Accuracy at each level of a label tree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def level_accuracy(confusion: Tensor, levels: Sequence[Sequence[int]]) -> Tensor:
    """Accuracy at each level of a label tree, coarsest first, over the samples that were counted.

    An answer is right at a level if it has the same ancestor there as the true class. Where samples have labels of
    several levels (-1 in ``levels``), each counts at the level of its own label only.

    Args:
        confusion: ``(C, C)`` counts of answers (column) for each true class (row).
        levels: For each of ``L`` levels the ancestor of each class there, as
            :attr:`~lightning_cl.datamodules.StreamInfo.levels`.

    Returns:
        ``(L,)`` float64 in [0, 1]; NaN for a level without a sample.

    Raises:
        ValueError: If the shapes do not agree.

    Example:
        >>> import torch
        >>> from lightning_cl.metrics.functional import level_accuracy
        >>> level_accuracy(torch.tensor([[1, 1, 0], [0, 2, 0], [1, 0, 1]]), [(0, 0, 1), (0, 1, 2)])
        tensor([0.8333, 0.6667], dtype=torch.float64)
    """
    above = torch.as_tensor(levels, device=confusion.device)  # (L, C)
    if above.ndim != 2 or confusion.shape != (above.shape[1],) * 2:
        raise ValueError(
            f"`confusion` {tuple(confusion.shape)} and `levels` {tuple(above.shape)} do not agree; give (C, C) counts "
            "and for each level one ancestor per class."
        )
    lowest = (above >= 0).sum(dim=0) - 1  # (C,) level of each class
    counted = above >= 0
    if len(lowest.unique()) > 1:
        counted = torch.arange(len(above), device=above.device)[:, None] == lowest
    same = above[:, :, None] == above[:, None, :]  # (L, C, C)
    counts = confusion.double()
    right = (counts * same).sum(dim=2) * counted
    return right.sum(dim=1) / (counts.sum(dim=1) * counted).sum(dim=1)
