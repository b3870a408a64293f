"""Whether something was forgotten or only hidden: membership, generalisation, and the distance of two distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import RowLike, to_float64


def membership_gap(members: RowLike, others: RowLike) -> Tensor:
    """Largest advantage of telling training samples from others by a threshold on their loss, in [0, 1].

    ``max_t (share of members with a loss <= t) - (share of others with a loss <= t)``: true minus false positives of
    the attack by loss (arXiv:1709.01604) at its best threshold. 0: the losses give nothing away, as of a model that
    never saw the samples; 1: they separate the two.

    Args:
        members: ``(N,)`` losses of samples that were trained on.
        others: ``(M,)`` losses of samples of the same classes that were not.

    Raises:
        ValueError: If one of them is empty.
    """
    first, second = _shares_below(members, others)
    return (first - second).max().clamp_min(0)


def kolmogorov_smirnov(first: RowLike, second: RowLike) -> Tensor:
    """Largest distance of the distribution functions of two samples, in [0, 1]; 0: the same values.

    Args:
        first: ``(N,)`` numbers, such as losses of an unlearned model.
        second: ``(M,)`` numbers, such as those of a model that was trained without what is to be forgotten.

    Raises:
        ValueError: If one of them is empty.
    """
    one, two = _shares_below(first, second)
    return (one - two).abs().max()


def forget_generalisation(before: float, after: float, chance: float) -> float:
    """How much of what was unlearned on some samples is lost on others of their classes (arXiv:2409.02228).

    ``(before - after) / (before - chance)``: 1 where the others are at chance, too, 0 where only the unlearned samples
    are affected; NaN where there was nothing to lose.

    Args:
        before: Accuracy on held-out samples before the request, in [0, 1].
        after: The same after it.
        chance: Accuracy of guessing, in [0, 1].
    """
    return (before - after) / (before - chance) if before != chance else float("nan")


def _shares_below(first: RowLike, second: RowLike) -> tuple[Tensor, Tensor]:
    """``(N + M,)`` shares of both samples that are at most each of all their values."""
    one, two = to_float64(first).flatten(), to_float64(second).flatten()
    if not len(one) or not len(two):
        raise ValueError(
            f"there are {len(one)} and {len(two)} values to compare; give at least one of each: members and others."
        )
    values = torch.cat([one, two])
    shares = [torch.searchsorted(part.sort().values, values, right=True) / len(part) for part in (one, two)]
    return shares[0], shares[1]
