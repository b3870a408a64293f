"""Metrics of adaptation without labels: how well a model does on a domain before it has adapted to it, and after.

``acc`` is the accuracy matrix, ``(T, T)`` in [0, 1], with a column for each domain; all rows are complete.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, RowLike, finished_block, finished_row


def accuracy_before_adaptation(
    acc: MatrixLike, unlabelled: Sequence[int], k: int | None = None, *, baseline: RowLike | None = None
) -> Tensor:
    """Accuracy on each unlabelled domain before any adaptation, ``(U,)``: of the model that the labelled tasks made.

    Args:
        acc: ``(T, T)`` in [0, 1].
        unlabelled: Tasks without labels, ascending, the last ones; only those that are finished count.
        k: Number of finished tasks; all by default.
        baseline: ``(T,)`` accuracies before the first task, for a stream without labelled tasks; without it they are
            NaN there.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``baseline`` is not ``(T,)``.
    """
    matrix, done = finished_block(acc, None), _finished(acc, unlabelled, k)
    source = min(unlabelled, default=0) - 1
    if source >= 0:
        return matrix[source, done]
    if baseline is None:
        return matrix.new_full((len(done),), float("nan"))
    return finished_row("baseline", baseline, len(matrix), matrix)[done]


def accuracy_after_adaptation(acc: MatrixLike, unlabelled: Sequence[int], k: int | None = None) -> Tensor:
    """Accuracy on each unlabelled domain just after the model has adapted to it, ``(U,)``.

    Args:
        acc: As :func:`accuracy_before_adaptation`.
        unlabelled: As :func:`accuracy_before_adaptation`.
        k: As :func:`accuracy_before_adaptation`.

    Raises:
        ValueError: As :func:`accuracy_before_adaptation`.
    """
    return finished_block(acc, None).diagonal()[_finished(acc, unlabelled, k)]


def adaptation_summary(
    acc: MatrixLike, k: int, unlabelled: Sequence[int], baseline: RowLike | None = None
) -> dict[str, Tensor]:
    """The numbers of a report after ``k`` tasks: means over the domains; NaN before the first has been adapted to.

    Args:
        acc: ``(T, T)`` accuracies in [0, 1]; rows of finished tasks are complete.
        k: Number of finished tasks.
        unlabelled: The tasks without labels.
        baseline: As :func:`accuracy_before_adaptation`.

    Raises:
        ValueError: As :func:`accuracy_before_adaptation`.
    """
    before = accuracy_before_adaptation(acc, unlabelled, k, baseline=baseline)
    after = accuracy_after_adaptation(acc, unlabelled, k)
    return {
        "accuracy_before": before.mean(),
        "accuracy_after": after.mean(),
        "accuracy_gain": (after - before).mean(),
        "accuracy_at_end": finished_block(acc, None)[k - 1, _finished(acc, unlabelled, k)].mean(),
    }


def _finished(acc: MatrixLike, unlabelled: Sequence[int], k: int | None) -> Tensor:
    tasks = len(finished_block(acc, k))
    return torch.tensor([task for task in unlabelled if task < tasks], dtype=torch.long)
