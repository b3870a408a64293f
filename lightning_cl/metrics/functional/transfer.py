"""What one task does to another: backward and forward transfer, and what could not be learned (intransigence).

``acc`` is ``(T, T)``, ``acc[i, j]`` is accuracy on task ``j`` after training task ``i``, ids from 0, NaN where not
measured. A NaN in a cell that a formula uses makes the result NaN, as does having one finished task where an old one
is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, RowLike, counted_tasks, finished_block, finished_row


def backward_transfer(
    acc: MatrixLike,
    k: int | None = None,
    *,
    higher_is_better: bool = True,
    has_data: Tensor | Sequence[bool] | None = None,
) -> Tensor:
    """Mean change of the old tasks since each was learned (BWT, GEM, arXiv:1706.08840, eq. 3), in [-1, 1].

    ``(1/(k-1)) sum_{j<k-1} (acc[k-1, j] - acc[j, j])``; negative is forgetting, -0.2 is 20 points lost. NaN for ``k =
    1``.

    Args:
        acc: ``(T, T)``; any unit, the result has the same.
        k: Number of finished tasks; all by default.
        higher_is_better: False for a matrix of losses: the sign is turned, so that negative is still forgetting.
        has_data: ``(T,)``, False for a task without test samples, which is left out; all count by default.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``has_data`` is not ``(T,)``.
    """
    block = finished_block(acc, k)
    counted = counted_tasks(has_data, len(finished_block(acc, None)), block)[:-1]
    change = (block[-1] - block.diagonal())[:-1][counted].mean()
    return change if higher_is_better else -change


def forward_transfer(
    acc: MatrixLike,
    baseline: RowLike | None = None,
    k: int | None = None,
    *,
    higher_is_better: bool = True,
    has_data: Tensor | Sequence[bool] | None = None,
) -> Tensor:
    """Mean head start on a task from the tasks before it (FWT, GEM, arXiv:1706.08840, eq. 4), in [-1, 1].

    ``(1/(k-1)) sum_{1<=j<k} (acc[j-1, j] - baseline[j])``; NaN for ``k = 1``. A class-incremental head has no trained
    output for a task to come, so there it is 0 or less by construction: report it for a shared head or a zero-shot
    model.

    Args:
        acc: ``(T, T)`` with the diagonal above the main one measured.
        baseline: ``(T,)``, the score on each task of the model before any training.
        k: Number of finished tasks; all by default.
        higher_is_better: False for a matrix of losses: the sign is turned, so that positive is still a head start.
        has_data: ``(T,)``, False for a task without test samples, which is left out; all count by default.

    Raises:
        ValueError: If ``baseline`` is missing or not ``(T,)``, ``acc`` is not square, or ``k`` is not in ``1..T``.
    """
    block = finished_block(acc, k)
    if baseline is None:
        raise ValueError(
            "Forward transfer needs `baseline`, the accuracy on each task before any training, and it is missing; "
            "evaluate the untrained model and pass its (T,) accuracies (they are not 0: guessing is right sometimes)."
        )
    start = finished_row("baseline", baseline, len(finished_block(acc, None)), block)
    counted = counted_tasks(has_data, len(finished_block(acc, None)), block)[1:]
    gain = (block.diagonal(1) - start[1:])[counted].mean()
    return gain if higher_is_better else -gain


def intransigence(
    acc: MatrixLike,
    joint: RowLike,
    k: int | None = None,
    *,
    reduction: Literal["last", "mean", "none"] = "last",
    higher_is_better: bool = True,
) -> Tensor:
    """What joint training reaches and this run did not, in [-1, 1]; negative is better (arXiv:1801.10112).

    ``I_i = joint[i] - acc[i, i]``.

    Args:
        acc: ``(T, T)``; any unit, the result has the same.
        joint: ``(T,)``, accuracy on task ``i`` of a model trained jointly on tasks ``0..i`` with the same budget per
            sample.
        k: Number of finished tasks; all by default.
        reduction: ``"last"`` gives ``I_{k-1}``, ``"mean"`` the mean over the ``k`` tasks, ``"none"`` all ``(k,)``.
        higher_is_better: False for losses: the sign is turned, so that positive is still "learned less than joint".

    Raises:
        ValueError: If ``joint`` is not ``(T,)``, ``acc`` is not square, ``k`` is not in ``1..T``, or ``reduction`` is
            unknown.
    """
    block = finished_block(acc, k)
    gap = finished_row("joint", joint, len(finished_block(acc, None)), block) - block.diagonal()
    gap = gap if higher_is_better else -gap
    if reduction == "last":
        return gap[-1]
    if reduction == "mean":
        return gap.mean()
    if reduction == "none":
        return gap
    raise ValueError(f"`reduction` is {reduction!r}; give 'last', 'mean' or 'none'.")
