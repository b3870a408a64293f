"""How much is known: averages over the rows and the diagonal of an accuracy matrix.

Everywhere ``acc`` is ``(T, T)`` in [0, 1], ``acc[i, j]`` is accuracy on the test data of task ``j`` after training task
``i``, ids from 0, and NaN is a cell that was not measured. A NaN in a cell that a formula uses makes the result NaN.
``k`` counts the finished tasks (default: all ``T``), so the same function gives the value at every stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import (
    MatrixLike,
    RowLike,
    counted_tasks,
    finished_block,
    finished_row,
    undefined,
)


def accuracy_per_stage(acc: MatrixLike, k: int | None = None, *, sizes: RowLike | None = None) -> Tensor:
    """Accuracy over the tasks seen so far, after every task: ``A_i = mean_{j<=i} acc[i, j]``.

    Args:
        acc: ``(T, T)`` in [0, 1].
        k: Number of finished tasks; all by default.
        sizes: ``(T,)`` test samples of each task. Given, the samples of all seen tasks are pooled (micro average) and a
            task without samples does not count; without it every task weighs the same.

    Returns:
        ``(k,)`` float64 in [0, 1].

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``sizes`` is not ``(T,)`` of values >= 0.
    """
    block = finished_block(acc, k)
    weights = torch.ones_like(block[0])
    if sizes is not None:
        weights = finished_row("sizes", sizes, len(finished_block(acc, None)), block)
        if not bool((weights >= 0).all()):
            raise ValueError(f"`sizes` is {weights.tolist()} but counts test samples; give numbers >= 0.")
    used = torch.ones_like(block).tril().bool() & (weights > 0)  # where, not *: NaN * 0 is NaN
    return torch.where(used, block * weights, 0).sum(1) / torch.where(used, weights, 0).sum(1)


def average_accuracy(acc: MatrixLike, k: int | None = None, *, sizes: RowLike | None = None) -> Tensor:
    """Mean accuracy over the tasks seen so far, in [0, 1] (ACC, ``A_k``, "last"): ``(1/k) sum_{j<k} acc[k-1, j]``.

    GEM, arXiv:1706.08840, eq. 2. The protocol papers of the PyCIL family report the micro average, see ``sizes``.

    Args:
        acc: ``(T, T)`` in [0, 1].
        k: Number of finished tasks; all by default.
        sizes: ``(T,)`` test samples of each task, for the average over samples instead of over tasks.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``sizes`` is not ``(T,)`` of values >= 0.
    """
    return accuracy_per_stage(acc, k, sizes=sizes)[-1]


def average_incremental_accuracy(
    acc: MatrixLike, k: int | None = None, *, skip_first: bool = False, sizes: RowLike | None = None
) -> Tensor:
    """Mean over the stages of the accuracy on the tasks seen so far, in [0, 1] (AIA, "avg"): ``(1/k) sum_i A_i``.

    With ``sizes`` and class-incremental predictions this is iCaRL's average incremental accuracy (arXiv:1611.07725).

    Args:
        acc: ``(T, T)`` in [0, 1].
        k: Number of finished tasks; all by default.
        skip_first: Leave out the stage after the first task, as some papers do; NaN when there is no other.
        sizes: ``(T,)`` test samples of each task, for averages over samples instead of over tasks.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``sizes`` is not ``(T,)`` of values >= 0.
    """
    return accuracy_per_stage(acc, k, sizes=sizes)[1 if skip_first else 0 :].mean()


def learning_accuracy(
    acc: MatrixLike, k: int | None = None, *, has_data: Tensor | Sequence[bool] | None = None
) -> Tensor:
    """Mean accuracy on each task just after it was learned, in [0, 1] (LA): ``(1/k) sum_{j<k} acc[j, j]``.

    Together with backward transfer it is the average accuracy: ``A_k = LA_k + BWT_k (k - 1) / k`` (arXiv:1810.11910).

    Args:
        acc: ``(T, T)`` in [0, 1].
        k: Number of finished tasks; all by default.
        has_data: ``(T,)``, False for a task without test samples, which is left out; all count by default.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``has_data`` is not ``(T,)``.
    """
    block = finished_block(acc, k)
    return block.diagonal()[counted_tasks(has_data, len(finished_block(acc, None)), block)].mean()


def knowledge_rate(acc: MatrixLike, k: int | None = None, *, sizes: RowLike | None = None) -> Tensor:
    """Accuracy now over accuracy after the first task, ``A_k / A_1`` in [0, inf); NaN where ``A_1`` is 0.

    Few-shot class-incremental papers report it as "KR" on micro averages, so pass ``sizes`` to compare with them.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``sizes`` is not ``(T,)`` of values >= 0.
    """
    stages = accuracy_per_stage(acc, k, sizes=sizes)
    return torch.where(stages[0] == 0, undefined(stages), stages[-1] / stages[0])
