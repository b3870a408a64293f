"""Accuracy at any time: what an online learner would have answered at every moment, and after every task.

Accuracies are fractions in [0, 1]; an evaluation uses the test samples of the classes exposed so far and lets only
those classes compete. A NaN that a formula uses makes the result NaN, as does having no evaluation at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, RowLike, to_float64, undefined
from lightning_cl.metrics.functional._trace import as_trace


def a_auc(accuracy: RowLike, widths: RowLike | None = None) -> Tensor:
    """Area under the curve of accuracy over samples seen, ``sum_i f(i dn) dn / sum_i dn``, in [0, 1] (A_AUC).

    CLIB / i-Blurry, arXiv:2110.10031. With one evaluation every ``dn`` samples it is the plain mean. The
    evaluations after each task are not part of it.

    Args:
        accuracy: ``(P,)``, accuracy on all exposed test samples at every periodic evaluation.
        widths: ``(P,)`` samples that each evaluation stands for; the same for all by default.

    Raises:
        ValueError: If ``accuracy`` is not ``(P,)``, or ``widths`` is not ``(P,)`` of values >= 0.
    """
    values = _row("accuracy", accuracy)
    if widths is None:
        return values.mean()
    weights = _row("widths", widths).to(values.device)
    if weights.shape != values.shape or not bool((weights >= 0).all()):
        raise ValueError(
            f"`widths` has shape {tuple(weights.shape)} and `accuracy` {tuple(values.shape)}; give for each evaluation "
            "the number of samples it stands for, at least 0."
        )
    return (values * weights).sum() / weights.sum()


def average_anytime_accuracy(trace: MatrixLike) -> Tensor:
    """Mean over all evaluations, those inside tasks too, of the mean accuracy over the tasks seen, in [0, 1] (AAA).

    ``(1/P) sum_n (1/k_n) sum_{j seen at n} trace[n, j]``. Evaluated at the task ends only it is the average incremental
    accuracy; every task weighs the same, where :func:`a_auc` pools the samples.

    Args:
        trace: ``(P, T)`` in [0, 1]; ``trace[n, j]`` is accuracy on task ``j`` at evaluation ``n``, NaN before the first
            evaluation of ``j``. A task that is never evaluated does not count.

    Raises:
        ValueError: If ``trace`` is not two-dimensional.
    """
    values, seen = as_trace(trace)
    return (torch.where(seen, values, 0).sum(1) / seen.sum(1)).mean()


def a_avg(after_task: RowLike) -> Tensor:
    """Mean over the tasks of the accuracy after each, in [0, 1] (A_Avg of Si-Blurry, arXiv:2308.09303).

    Args:
        after_task: ``(k,)``, accuracy on all exposed test samples after every finished task.

    Raises:
        ValueError: If ``after_task`` is not ``(k,)``.
    """
    return _row("after_task", after_task).mean()


def a_last(after_task: RowLike) -> Tensor:
    """Accuracy after the last finished task, in [0, 1] (A_Last of Si-Blurry, arXiv:2308.09303); NaN when there is none.

    Args:
        after_task: ``(k,)``, accuracy on all exposed test samples after every finished task.

    Raises:
        ValueError: If ``after_task`` is not ``(k,)``.
    """
    values = _row("after_task", after_task)
    return values[-1] if len(values) else undefined(values)


def accuracy_of_counts(correct: MatrixLike | RowLike, total: MatrixLike | RowLike, smoothing: float = 0.0) -> Tensor:
    """``correct / (total + smoothing)`` in float64; NaN where nothing was counted.

    Args:
        correct: Counts, of any shape.
        total: Counts of the same shape.
        smoothing: The i-Blurry code divides the accuracy of a class by its count plus 1e-5, which lowers every value by
            about one part in ten million for 100 samples; 0 is exact.

    Raises:
        ValueError: If the shapes differ or not ``0 <= correct <= total``.
    """
    hits, counted = to_float64(correct), to_float64(total)
    if hits.shape != counted.shape or not bool(((hits >= 0) & (hits <= counted)).all()):
        raise ValueError(
            f"`correct` {tuple(hits.shape)} and `total` {tuple(counted.shape)} must have one shape and 0 <= correct <= "
            "total; were the two exchanged?"
        )
    return torch.where(counted > 0, hits / (counted + smoothing), torch.nan)


def f_last(class_accuracy: MatrixLike) -> Tensor:
    """Mean loss of accuracy per class from its best earlier task end to the last, in [-1, 1] (F_Last).

    ``mean_c (max_{t<k} a[t, c] - a[k, c])`` over the classes that were above 0 after some earlier task; those first
    learned in the last task are left out, and a class that gained counts negative (as in the code of i-Blurry,
    arXiv:2110.10031, and Si-Blurry, arXiv:2308.09303). That code smooths the accuracies, see
    :func:`accuracy_of_counts`; here they are exact unless yours are smoothed.

    Args:
        class_accuracy: ``(k, C)`` in [0, 1]; ``class_accuracy[t, c]`` is the accuracy on class ``c`` after task ``t``,
            NaN before ``c`` was exposed.

    Returns:
        A float64 scalar; NaN when no class was learned before the last task.

    Raises:
        ValueError: If ``class_accuracy`` is not two-dimensional.
    """
    values = to_float64(class_accuracy)
    if values.ndim != 2:
        raise ValueError(
            f"`class_accuracy` has shape {tuple(values.shape)} but must be (k, C): a row for each finished task, a "
            "column for each class, NaN where a class was not exposed yet."
        )
    if len(values) < 2:
        return undefined(values)
    values, exposed = as_trace(values)
    best = torch.where(exposed, values, 0)[:-1].amax(dim=0)
    learned = best != 0  # NaN != 0, so a missing value is not hidden
    return (best - values[-1])[learned].mean()


def prequential_accuracy(correct: RowLike, total: RowLike) -> Tensor:
    """Share of the samples so far that were predicted rightly before being trained on, in [0, 1] (online accuracy).

    Args:
        correct: ``(P,)`` right predictions in each batch (or since the evaluation before).
        total: ``(P,)`` samples of each.

    Returns:
        ``(P,)`` float64, the running value; the last entry is that of the whole stream. NaN before the first sample.

    Raises:
        ValueError: If the shapes differ or not ``0 <= correct <= total``.
    """
    hits, counted = _row("correct", correct), _row("total", total)
    accuracy_of_counts(hits, counted)
    return hits.cumsum(0) / counted.cumsum(0)


def _row(name: str, row: RowLike) -> Tensor:
    values = to_float64(row)
    if values.ndim != 1:
        raise ValueError(f"`{name}` has shape {tuple(values.shape)} but must have one dimension.")
    return values
