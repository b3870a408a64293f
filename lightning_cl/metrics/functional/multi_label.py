"""How well several labels a sample are predicted: average precision of each class, and F1 above a threshold."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision


def average_precision(scores: Tensor, sets: Tensor) -> Tensor:
    """``(C,)`` float64 average precision of each class; NaN for one without a positive sample.

    Args:
        scores: ``(N, C)`` logits or probabilities.
        sets: ``(N, C)`` bool.
    """
    found = []
    for column, has in zip(scores.double().T, sets.T, strict=True):
        # Places among the distinct values and not the scores: a sigmoid of large logits would make ties of them.
        places = column.unique(return_inverse=True)[1].double() / max(len(column), 1)
        known = bool(has.any())
        found.append(float(binary_average_precision(places, has.long())) if known else torch.nan)
    return torch.tensor(found, dtype=torch.float64)


def f1_above(scores: Tensor, sets: Tensor, threshold: float = 0.8) -> tuple[Tensor, Tensor]:
    """CF1 and OF1: of the mean precision and recall over classes, and over all labels together.

    A class without predictions has the precision 0, one without samples does not count.

    Args:
        scores: ``(N, C)`` logits.
        sets: ``(N, C)`` bool.
        threshold: On ``sigmoid(scores)``.
    """
    chosen, known = scores.double().sigmoid() > threshold, sets.any(dim=0)
    right, given, there = ((part.sum(dim=0)[known].double()) for part in (chosen & sets, chosen, sets))
    by_class = _f1((right / given.clamp_min(1)).mean(), (right / there).mean())
    return by_class, _f1(right.sum() / given.sum().clamp_min(1), right.sum() / there.sum().clamp_min(1))


def _f1(precision: Tensor, recall: Tensor) -> Tensor:
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total, 0.0)
