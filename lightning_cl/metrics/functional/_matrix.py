"""Checks and conversions shared by the functions of an accuracy matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MatrixLike = Tensor | Sequence[Sequence[float]]
RowLike = Tensor | Sequence[float]


def to_float64(value: MatrixLike | RowLike) -> Tensor:
    """The values in float64, on their own device where it has float64 and on the CPU where it has not (MPS)."""
    if not isinstance(value, Tensor):
        return torch.as_tensor(value, dtype=torch.float64)
    return value.to("cpu" if value.device.type == "mps" else value.device, torch.float64)


def finished_block(acc: MatrixLike, k: int | None) -> Tensor:
    """The ``(k, k)`` part of ``acc`` that is known after ``k`` finished tasks, in float64.

    Raises:
        ValueError: If ``acc`` is not square or empty, or ``k`` is not in ``1..T``.
    """
    matrix = to_float64(acc)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(
            f"`acc` has shape {tuple(matrix.shape)} but must be square, (T, T) with T >= 1: "
            "acc[i, j] is the accuracy on task j after training task i; fill what was not measured with NaN."
        )
    if k is None:
        return matrix
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(matrix):
        raise ValueError(f"`k` is {k!r} but counts the finished tasks of {len(matrix)}; give one of 1..{len(matrix)}.")
    return matrix[:k, :k]


def finished_row(name: str, row: RowLike, num_tasks: int, block: Tensor) -> Tensor:
    """The first ``k`` of the ``T`` reference values ``row``, in float64 beside ``block`` ``(k, k)``.

    Raises:
        ValueError: If ``row`` does not hold one value for each of the ``T`` tasks.
    """
    values = to_float64(row).to(block.device)
    if values.shape != (num_tasks,):
        raise ValueError(f"`{name}` has shape {tuple(values.shape)} but must be ({num_tasks},), a value per task.")
    return values[: len(block)]


def counted_tasks(has_data: Tensor | Sequence[bool] | None, num_tasks: int, block: Tensor) -> Tensor:
    """``(k,)`` bool beside ``block`` ``(k, k)``: finished tasks that a mean over tasks counts; all for ``None``.

    A task of which no test sample can be given (its classes are all of earlier tasks) has no accuracy, not an unknown
    one: it is left out, while NaN in a task that has samples stays NaN.

    Raises:
        ValueError: If ``has_data`` does not hold one value for each of the ``T`` tasks.
    """
    if has_data is None:
        return torch.ones_like(block[0], dtype=torch.bool)
    return finished_row("has_data", torch.as_tensor(has_data), num_tasks, block).bool()


def finished_stages(acc: MatrixLike) -> int:
    """Number of stages up to the last one with any measured value: the ``k`` of a stream that is not over yet.

    Args:
        acc: ``(T, T)``, NaN where nothing was measured.

    Returns:
        An int in ``0..T``; 0 when nothing was measured at all.
    """
    measured = finished_block(acc, None).isnan().logical_not().any(dim=1).nonzero()
    return int(measured[-1]) + 1 if len(measured) else 0


def undefined(block: Tensor) -> Tensor:
    """NaN beside ``block``: the value of a metric that needs an old task when there is none."""
    return block.new_tensor(float("nan"))
