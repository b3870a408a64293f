"""Counts the optimiser steps of every task, from which learning-rate schedules are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lightning_cl.datamodules.task import Schedule
from lightning_cl.namespace import GradientAccumulationScheduler, Trainer


def limited(batches: int, limit: int | float) -> int:
    """How many batches of an epoch a ``limit_*_batches`` of the Trainer leaves: a number, or a fraction as a float."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def steps_of_tasks(
    batches: Sequence[int], schedule: Schedule, epochs: int, accumulated: Callable[[int], int]
) -> list[int]:
    """Optimiser steps of every task; an epoch ends with a step, also when fewer gradients have accumulated.

    Args:
        batches: For each task the batches of one of its epochs.
        schedule: Epochs of the tasks.
        epochs: Number of epochs after which the run ends.
        accumulated: How many batches make a step in an epoch.
    """
    firsts = [schedule.first_epoch(task) for task in range(len(batches))]
    return [
        sum(math.ceil(count / accumulated(epoch)) for epoch in range(first, min(first + own, epochs)))
        for count, first, own in zip(batches, firsts, schedule.epochs, strict=True)
    ]


def accumulation(trainer: Trainer) -> Callable[[int], int]:
    """How many batches make an optimiser step, by epoch."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches
    return lambda epoch: trainer.accumulate_grad_batches
