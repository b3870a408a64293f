"""From logits to predicted classes under a label space: all classes seen so far, or those of each sample's task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def class_table(
    classes_per_task: Sequence[Sequence[int]], num_classes: int, device: torch.device | None = None
) -> Tensor:
    """Which classes belong to which task, as a ``(T, C)`` bool table. Build it once and pass it for every batch.

    Raises:
        ValueError: If a class is not in ``0..num_classes - 1``.
    """
    table = torch.zeros(len(classes_per_task), num_classes, dtype=torch.bool)
    for task, classes in enumerate(classes_per_task):
        wrong = [c for c in classes if not 0 <= c < num_classes]
        if wrong:
            raise ValueError(
                f"Task {task} has classes {wrong[:5]} but the logits have {num_classes} columns, 0..{num_classes - 1}; "
                "give the head one output for each class."
            )
        table[task, list(classes)] = True
    return table.to(device)


def mask_logits(logits: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    """The logits with every class outside ``classes`` set to -inf.

    Args:
        logits: ``(N, C)``.
        classes: Class ids, or a bool mask that broadcasts to ``(N, C)``: ``(C,)`` for all samples alike, ``(N, C)``
            for each its own.

    Returns:
        ``(N, C)``, of the logits' dtype.

    Raises:
        ValueError: If no class is given or one is not a column of the logits.
    """
    if isinstance(classes, Tensor) and classes.dtype == torch.bool:
        if classes.shape[-1] != logits.shape[-1]:
            raise ValueError(f"The mask has {classes.shape[-1]} columns but the logits have {logits.shape[-1]}.")
        return logits.masked_fill(~classes, -torch.inf)
    ids = [int(c) for c in classes]
    if not ids:
        raise ValueError("`classes` is empty, so no class could be predicted; give at least one.")
    return logits.masked_fill(~class_table([ids], logits.shape[-1], logits.device)[0], -torch.inf)


def class_il_predictions(logits: Tensor, seen_classes: Sequence[int] | Tensor) -> Tensor:
    """Class-incremental predictions: the best of all classes seen so far, the task is not told.

    Classes not seen yet have untrained outputs, one of which could win by chance; they cannot be predicted.

    Args:
        logits: ``(N, C)``.
        seen_classes: Ids of the seen classes, or a ``(C,)`` bool mask.

    Returns:
        ``(N,)`` int64 class ids.

    Raises:
        ValueError: If no class is given or one is not a column of the logits.
    """
    return mask_logits(logits, seen_classes).argmax(dim=-1)


def task_il_predictions(
    logits: Tensor, task: Tensor | int, classes_per_task: Sequence[Sequence[int]] | Tensor
) -> Tensor:
    """Task-incremental predictions: the best class of each sample's own task, which is told.

    Args:
        logits: ``(N, C)``.
        task: ``(N,)`` task ids from 0, or one for all samples.
        classes_per_task: The classes of each task, or the ``(T, C)`` bool table of :func:`class_table`, which saves
            building it (and copying it to the device) for every batch.

    Returns:
        ``(N,)`` int64 class ids.

    Raises:
        ValueError: If a class is not a column of the logits.
    """
    if not isinstance(classes_per_task, Tensor):
        classes_per_task = class_table(classes_per_task, logits.shape[-1])
    return mask_logits(logits, classes_per_task.to(logits.device)[task]).argmax(dim=-1)
