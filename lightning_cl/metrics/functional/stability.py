"""The stability gap: what happens to old tasks between two task ends (arXiv:2205.13452).

``trace`` is ``(P, T)`` in [0, 1], ``trace[n, j]`` is accuracy on the evaluation data of task ``j`` at evaluation ``n``
inside the run, ids from 0, NaN before the first evaluation of ``j``. ``task`` is ``(P,)``, the task in training at each
evaluation. Values are those at the last evaluation given; pass ``trace[:n], task[:n]`` for an earlier moment. A task
that was not evaluated up to then is skipped; a NaN after its first evaluation makes the result NaN.

All of them count evaluations, not steps: report the period of the evaluations with the number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, undefined
from lightning_cl.metrics.functional._trace import TaskLike, as_trace, as_trained


def min_acc(trace: MatrixLike, task: TaskLike) -> Tensor:
    """Mean over old tasks of the lowest accuracy since their own training ended, in [0, 1] (min-ACC).

    ``(1/(k-1)) sum_{i<k} min_{t_i < n <= t} A(E_i, f_n)``. The task in training never counts; NaN when there is no
    old one. It never rises inside a task.

    Args:
        trace: ``(P, T)`` in [0, 1].
        task: ``(P,)`` task in training at each evaluation, from 0, never going back.

    Raises:
        ValueError: If ``trace`` is not two-dimensional or ``task`` does not fit it.
    """
    return _minima(*_checked(trace, task)).mean()


def wc_acc(trace: MatrixLike, task: TaskLike) -> Tensor:
    """Worst-case accuracy: the mean of the current task's accuracy and the minima of the old ones, in [0, 1] (WC-ACC).

    ``(1/k) A(E_k, f_t) + (1 - 1/k) minACC_k(t)``, a lower bound of the average accuracy at any time. In the
    first task it is that task's accuracy.

    Args:
        trace: ``(P, T)`` in [0, 1].
        task: ``(P,)`` task in training at each evaluation, from 0, never going back.

    Raises:
        ValueError: If ``trace`` is not two-dimensional or ``task`` does not fit it.
    """
    values, seen, trained = _checked(trace, task)
    minima = _minima(values, seen, trained)
    if len(trained) == 0:
        return minima.mean()
    now = trained[-1:]
    return torch.cat([minima, values[-1, now][seen[-1, now]]]).mean()


def windowed_forgetting(trace: MatrixLike, window: int) -> Tensor:
    """Mean over tasks of the largest drop within ``window`` evaluations in a row, in [0, 1] (WF).

    ``max(0, max_{m < n < m + window} trace[m, j] - trace[n, j])``; the current task counts too. It never falls as the
    run goes on or the window grows. Where classes of one task are exposed one after the other, a task's evaluation
    data grow, and a drop can be due to that.

    Args:
        trace: ``(P, T)`` in [0, 1].
        window: ``D``, at least 2; published are 10 and 100.

    Raises:
        ValueError: If ``trace`` is not two-dimensional or ``window`` is below 2.
    """
    values, seen = as_trace(trace)
    return _largest_drop(values, seen, window)


def windowed_plasticity(trace: MatrixLike, window: int) -> Tensor:
    """Mean over tasks of the largest rise within ``window`` evaluations in a row, in [0, 1] (WP).

    As :func:`windowed_forgetting`, with ``trace[n, j] - trace[m, j]``.

    Args:
        trace: ``(P, T)`` in [0, 1].
        window: ``D``, at least 2; published are 10 and 100.

    Raises:
        ValueError: If ``trace`` is not two-dimensional or ``window`` is below 2.
    """
    values, seen = as_trace(trace)
    return _largest_drop(-values, seen, window)


def learning_curve_area(trace: MatrixLike, task: TaskLike, beta: int = 10) -> Tensor:
    """Mean accuracy of each task over the first ``beta`` evaluations in its own training, averaged, in [0, 1] (LCA).

    As the code of continual evaluation computes it. A-GEM (arXiv:1812.00420) also counts an evaluation before the
    first update, and divides by ``beta + 1``. A task with fewer evaluations is averaged over those it has.

    Args:
        trace: ``(P, T)`` in [0, 1].
        task: ``(P,)`` task in training at each evaluation, from 0, never going back.
        beta: Number of evaluations, at least 1.

    Raises:
        ValueError: If ``trace`` is not two-dimensional, ``task`` does not fit it, or ``beta`` is below 1.
    """
    values, seen, trained = _checked(trace, task)
    if beta < 1:
        raise ValueError(f"`beta` is {beta} but counts evaluations; give at least 1.")
    own = seen & (trained[:, None] == torch.arange(values.shape[1], device=values.device))
    first = own & (own.long().cumsum(0) <= beta)
    learned = first.any(dim=0)
    means = torch.where(first, values, 0).sum(0) / first.sum(0)
    return means[learned].mean()


def _checked(trace: MatrixLike, task: TaskLike) -> tuple[Tensor, Tensor, Tensor]:
    values, seen = as_trace(trace)
    return values, seen, as_trained(task, values)


def _minima(values: Tensor, seen: Tensor, trained: Tensor) -> Tensor:
    """Lowest accuracy of each old task since its training ended, ``(k - 1,)``."""
    if len(trained) == 0:
        return values.new_empty(0)
    tasks = torch.arange(values.shape[1], device=values.device)
    since = trained[:, None] > tasks  # (P, T); strictly after the task's own training
    old = (tasks < trained[-1]) & seen[-1]
    return torch.where(since, values, torch.inf).amin(dim=0)[old]


def _largest_drop(values: Tensor, seen: Tensor, window: int) -> Tensor:
    if window < 2:
        raise ValueError(f"`window` is {window} but a change needs two evaluations; give at least 2.")
    if len(values) == 0:
        return undefined(values)
    known = torch.where(seen, values, -torch.inf)
    before = known.new_full((min(window, len(known)) - 1, known.shape[1]), -torch.inf)
    # The highest of each value and the `window - 1` before it, so that the drop is at least 0.
    highest = torch.cat([before, known]).unfold(0, len(before) + 1, 1).amax(-1)  # (P, T)
    drops = torch.where(seen, highest - values, 0).amax(0)
    return drops[seen[-1]].mean()
