"""Metrics of forgetting on request: what is asked for shall be gone, and the rest shall stay.

``acc`` is the class-incremental accuracy matrix, ``(T, T)`` in [0, 1], of which the last ``requests`` tasks ask to
forget something: column ``t`` of such a task is the accuracy on what it asks to forget, also before it; all columns in
front of them are what is never asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, RowLike, finished_block, finished_row, to_float64


def forget_drop(acc: MatrixLike, requests: int, k: int | None = None) -> Tensor:
    """Accuracy on what a request asks to forget before its task minus after it, ``(R,)``: higher is better.

    Args:
        acc: ``(T, T)`` in [0, 1]; rows of finished tasks are complete.
        requests: How many of the ``T`` tasks, the last ones, ask to forget something; at least one task learns.
        k: Number of finished tasks; all by default. ``R`` is the number of finished requests.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``requests`` is not in ``1..T-1``.
    """
    return torch.stack([block[t - 1, t] - block[t, t] for block, t in _finished(acc, requests, k)] or [_none(acc)])


def retain_accuracy(acc: MatrixLike, requests: int, sizes: RowLike, k: int | None = None) -> Tensor:
    """Accuracy after each finished request over all test samples that no request so far asked to forget, ``(R,)``.

    Args:
        acc: As :func:`forget_drop`.
        requests: As :func:`forget_drop`.
        sizes: ``(T,)`` test samples of each task; they are pooled.
        k: As :func:`forget_drop`.

    Raises:
        ValueError: As :func:`forget_drop`, and if ``sizes`` is not ``(T,)``.
    """
    first = _first(acc, requests)
    return torch.stack(
        [_pooled(m, t, [*range(first), *range(t + 1, len(m))], sizes) for m, t in _finished(acc, requests, k)]
        or [_none(acc)]
    )


def forgotten_accuracy(acc: MatrixLike, requests: int, sizes: RowLike, k: int | None = None) -> Tensor:
    """Accuracy after each finished request over all that was to be forgotten by then, ``(R,)``: lower is better.

    Args:
        acc: As :func:`forget_drop`.
        requests: As :func:`forget_drop`.
        sizes: ``(T,)`` test samples of each task; they are pooled.
        k: As :func:`forget_drop`.

    Raises:
        ValueError: As :func:`retain_accuracy`.
    """
    first = _first(acc, requests)
    return torch.stack(
        [_pooled(m, t, list(range(first, t + 1)), sizes) for m, t in _finished(acc, requests, k)] or [_none(acc)]
    )


def forget_harmonic_mean(acc: MatrixLike, requests: int, sizes: RowLike, k: int | None = None) -> Tensor:
    """``H = 2 d r / (d + r)`` of drop and retain-accuracy after each finished request, ``(R,)`` (arXiv:2403.11530).

    0 where nothing was forgotten: a drop below 0 counts as 0.

    Args:
        acc: As :func:`forget_drop`.
        requests: As :func:`forget_drop`.
        sizes: As :func:`retain_accuracy`.
        k: As :func:`forget_drop`.

    Raises:
        ValueError: As :func:`retain_accuracy`.
    """
    drop, kept = forget_drop(acc, requests, k).clamp_min(0), retain_accuracy(acc, requests, sizes, k)
    total = drop + kept
    return torch.where(total == 0, torch.zeros_like(total), 2 * drop * kept / total)


def forget_summary(acc: MatrixLike, k: int, requests: int, sizes: RowLike) -> dict[str, Tensor]:
    """The numbers of a report after ``k`` tasks; NaN before the first request is finished.

    Args:
        acc: As :func:`forget_drop`.
        k: Number of finished tasks.
        requests: As :func:`forget_drop`.
        sizes: As :func:`retain_accuracy`.

    Raises:
        ValueError: As :func:`retain_accuracy`.
    """
    drop, mean = forget_drop(acc, requests, k), forget_harmonic_mean(acc, requests, sizes, k)
    block, last = finished_block(acc, None), k - 1
    return {
        "forget_accuracy": block[last, last] if last >= len(block) - requests else _none(acc),
        "forget_drop": drop[-1],
        "forgotten_accuracy": forgotten_accuracy(acc, requests, sizes, k)[-1],
        "retain_accuracy": retain_accuracy(acc, requests, sizes, k)[-1],
        "h_mean": mean[-1],
        "average_h_mean": mean.mean(),
    }


def _first(acc: MatrixLike, requests: int) -> int:
    tasks = len(finished_block(acc, None))
    if not 1 <= requests < tasks:
        raise ValueError(
            f"`requests` is {requests}, but there are {tasks} tasks, at least one of which learns; give 1..{tasks - 1}."
        )
    return tasks - requests


def _finished(acc: MatrixLike, requests: int, k: int | None) -> list[tuple[Tensor, int]]:
    """The whole matrix with each finished task that asks for something."""
    matrix, first = finished_block(acc, None), _first(acc, requests)
    done = len(matrix) if k is None else len(finished_block(acc, k))
    return [(matrix, task) for task in range(first, done)]


def _pooled(matrix: Tensor, row: int, columns: list[int], sizes: RowLike) -> Tensor:
    weights = finished_row("sizes", sizes, len(matrix), matrix)[columns]
    counted = weights > 0
    return (matrix[row, columns] * weights)[counted].sum() / weights.sum()


def _none(acc: MatrixLike) -> Tensor:
    return to_float64(acc).new_tensor(float("nan"))
