"""Forgetting of single items: when each was learned, lost and learned again, and how long what is learned stays."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: An evaluation in which an item was not looked at.
NOT_EVALUATED = 255


class ItemTimes(NamedTuple):
    """What happened to each of ``N`` items; evaluations count from 0, -1: it never happened.

    Attributes:
        learned: ``(N,)`` the first evaluation with a right answer.
        lost: ``(N,)`` the first one with a wrong answer after it.
        relearned: ``(N,)`` the first one with a right answer after that.
        losses: ``(N,)`` how often a right answer was followed by a wrong one.
        kept: ``(N,)`` bool: right in the last evaluation of the item.
    """

    learned: Tensor
    lost: Tensor
    relearned: Tensor
    losses: Tensor
    kept: Tensor


def item_times(answers: Tensor) -> ItemTimes:
    """When each item was learned, lost and learned again ("forgetting events" of arXiv:1812.05159 are its losses).

    Args:
        answers: ``(E, N)`` uint8, a row for each evaluation: 1 right, 0 wrong, 255 not evaluated, which is skipped.
    """
    count = answers.shape[1]
    learned, lost, relearned = (torch.full((count,), -1) for _ in range(3))
    losses, right = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool)
    for evaluation, row in enumerate(answers):
        known, now = row != NOT_EVALUATED, row == 1
        learned[(learned < 0) & now] = evaluation
        falls = known & right & ~now
        relearned[(lost >= 0) & (relearned < 0) & now] = evaluation
        lost[(lost < 0) & falls] = evaluation
        losses += falls
        right = torch.where(known, now, right)
    return ItemTimes(learned, lost, relearned, losses, right)


def retention(answers: Tensor) -> Tensor:
    """``(E,)`` share of right answers by age: entry ``a`` is over all items ``a`` evaluations after each was learned.

    Entry 0 is 1; NaN at ages that no item has.

    Args:
        answers: See :func:`item_times`.
    """
    learned, evaluations = item_times(answers).learned, len(answers)
    right, total = (torch.zeros(evaluations, dtype=torch.float64) for _ in range(2))
    for evaluation, row in enumerate(answers):
        counted = (learned >= 0) & (learned <= evaluation) & (row != NOT_EVALUATED)
        ages = evaluation - learned[counted]
        total += torch.bincount(ages, minlength=evaluations)
        right += torch.bincount(ages, weights=row[counted].double(), minlength=evaluations)
    return right / total


def forgetting_rate(share: Tensor) -> float:
    """``a`` of ``R(t) = 1 - a ln t`` by least squares, ``t`` the age plus 1 (a power law in steps; arXiv:2406.11813).

    Args:
        share: ``(A,)`` :func:`retention`; NaN entries are left out. 0 without an age above 0.
    """
    ages = torch.arange(1, len(share) + 1, dtype=torch.float64).log()
    known = ~share.isnan() & (ages > 0)
    if not bool(known.any()):
        return 0.0
    return float((ages[known] * (1 - share[known].double())).sum() / ages[known].square().sum())


def class_curves(answers: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """``(E, C)`` accuracy on the items of each class; NaN where none was evaluated.

    Args:
        answers: See :func:`item_times`.
        labels: ``(N,)``.
        num_classes: ``C``.
    """
    known, right = (answers != NOT_EVALUATED).double(), (answers == 1).double()
    member = torch.nn.functional.one_hot(labels, num_classes).double()
    return (right @ member) / (known @ member)


def learnability(before: float, lowest: float) -> float:
    """``(1 - lowest / before) * 100`` of a fact's perplexities (arXiv:2406.11813): how much an injection taught."""
    return (1 - lowest / before) * 100


def fact_forgetting(lowest: float, after: float) -> float:
    """``(after / lowest - 1) * 100`` of a fact's perplexities (arXiv:2406.11813): how much of it was lost since."""
    return (after / lowest - 1) * 100 if lowest else math.nan


def without_outliers(values: Tensor, reach: float = 1.5) -> Tensor:
    """``(M,)`` those of ``(N,)`` numbers that lie within ``reach`` inter-quartile ranges of the middle half.

    Args:
        values: At least one; NaN is left out.
        reach: At least 0; 1.5 in the code of arXiv:2406.11813.
    """
    known = values[~values.isnan()].double()
    low, high = known.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64))
    span = reach * (high - low)
    return known[(known >= low - span) & (known <= high + span)]
