"""Choose the strength of a ridge regression by its errors on samples that were held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.heads.gram import ridge_solution

#: Strengths that RanPAC tries.
RIDGES: tuple[float, ...] = tuple(10.0**power for power in range(-8, 9))


def held_out(positions: Tensor, share: float = 0.2) -> Tensor:
    """``(B,)`` bool: about this share of the samples, chosen by their ``(B,)`` places in the data alone.

    So the split is the same in any order, with any batches and on any number of processes.
    """
    return positions * 2654435761 % 2**32 < share * 2**32  # Knuth's multiplicative hash: spreads neighbours evenly


def ridge_errors(gram: Tensor, cross: Tensor, hidden: Tensor, targets: Tensor, ridges: Sequence[float]) -> list[float]:
    """Mean squared errors on held-out samples, of one-hot labels, for each ridge.

    Args:
        gram: ``(M, M)`` of the samples that are fitted.
        cross: ``(M, C)``.
        hidden: ``(N, M)`` regressors that were held out.
        targets: ``(N,)`` their classes.
        ridges: Strengths, at least 0.

    Returns:
        One for each ridge; infinite where the fit is not defined.
    """
    labels, errors = F.one_hot(targets.long(), cross.shape[1]).to(cross.dtype), []
    for ridge in ridges:
        try:
            errors.append(float((hidden @ ridge_solution(gram, cross, ridge) - labels).square().mean()))
        except ValueError:  # not positive definite
            errors.append(float("inf"))
    return errors


def choose_ridge(gram: Tensor, cross: Tensor, hidden: Tensor, targets: Tensor, scale: float) -> float | None:
    """The one of 17 strengths from ``1e-8 * scale`` to ``1e8 * scale`` with the least error; the first of equal ones.

    Returns:
        ``None`` if nothing was held out, or nothing was fitted.
    """
    ridges = [scale * ridge for ridge in RIDGES]
    if not len(hidden) or not scale > 0:
        return None
    errors = ridge_errors(gram, cross, hidden, targets, ridges)
    best = int(torch.tensor(errors, dtype=torch.float64).argmin())
    return ridges[best] if errors[best] < float("inf") else None
