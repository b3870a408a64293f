"""Checks shared by the functions of a trace: the accuracy of every task at every evaluation inside a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, to_float64

TaskLike = Tensor | Sequence[int]


def as_trace(trace: MatrixLike) -> tuple[Tensor, Tensor]:
    """``(P, T)`` values in float64, and ``(P, T)`` bool: from the first evaluation of each task on.

    Raises:
        ValueError: If ``trace`` is not two-dimensional.
    """
    values = to_float64(trace)
    if values.ndim != 2:
        raise ValueError(
            f"`trace` has shape {tuple(values.shape)} but must be (P, T): trace[n, j] is the accuracy on task j at "
            "evaluation n; fill what was not evaluated yet with NaN."
        )
    return values, values.isnan().logical_not().long().cumsum(0) > 0


def as_trained(task: TaskLike, trace: Tensor) -> Tensor:
    """``(P,)`` int64, the task in training at every evaluation, beside ``trace`` ``(P, T)``.

    Raises:
        ValueError: If there is not one task in ``0..T-1`` for each evaluation, or they go back.
    """
    trained = torch.as_tensor(task, device=trace.device).long()
    points, tasks = trace.shape
    if trained.shape != (points,):
        raise ValueError(f"`task` has shape {tuple(trained.shape)} but must be ({points},): one for each evaluation.")
    if points and not 0 <= int(trained.min()) <= int(trained.max()) < tasks:
        raise ValueError(f"`task` runs from {trained.min()} to {trained.max()} but `trace` has tasks 0..{tasks - 1}.")
    if bool((trained.diff() < 0).any()):
        raise ValueError("`task` goes back to an earlier task; give the evaluations in the order of training.")
    return trained
