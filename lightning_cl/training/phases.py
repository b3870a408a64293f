"""A task's epochs in phases: named slots at their start and at their end, and what is left between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from lightning_cl.datamodules.task import Task

#: Name of a phase, and how many epochs of a task it takes.
Slot = tuple[str, Callable[[Task], int]]


@dataclass(frozen=True)
class Phases:
    """Which phase an epoch of a task belongs to.

    Slots of a task may take no epoch at all.

    Attributes:
        first: Slots at the start of the epochs, one after the other.
        last: Slots at their end, in the order in which they come.
        between: Name of the phase of all other epochs.
    """

    first: Sequence[Slot] = ()
    last: Sequence[Slot] = ()
    between: str = "regular"

    def lengths(self, task: Task) -> dict[str, int]:
        """Epochs of each phase of a task, in order; below 0 between the slots where they take more than there are."""
        first, last = ({name: length(task) for name, length in slots} for slots in (self.first, self.last))
        return {**first, self.between: task.epochs - sum([*first.values(), *last.values()]), **last}

    def at(self, task: Task, epoch: int) -> str:
        """The phase of the ``epoch``-th epoch of a task, from 0."""
        lengths = self.lengths(task)
        return next(name for name, end in zip(lengths, accumulate(lengths.values()), strict=True) if epoch < end)

    def now(self, module: Any) -> str:
        """The phase of the epoch that a LightningModule is trained in."""
        trainer = module.trainer
        task = trainer.datamodule.task
        return self.at(task, trainer.current_epoch - task.first_epoch)


def last_epochs(share: float, task: Task) -> int:
    """How many of a task's last epochs are ``share`` of them, rounded; at least one comes before."""
    return min(round(share * task.epochs), task.epochs - 1)


def is_last_share(trainer: Any, share: float) -> bool:
    """Whether the last ``share`` of the current task's steps has begun; at least one step comes before."""
    task, each = trainer.datamodule.task, int(trainer.num_training_batches)
    done = (trainer.current_epoch - task.first_epoch) * each + trainer.fit_loop.batch_idx
    return bool(done >= max(round((1 - share) * task.epochs * each), 1))
