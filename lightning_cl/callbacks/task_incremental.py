"""What methods share that are told the task of every sample (task-incremental learning), and keep a head for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.taskwise import TaskwiseMethod


@dataclass(eq=False)
class ToldMethod(TaskwiseMethod):
    """Base of methods that answer for the task that they are told.

    To predict outside of a Trainer, name the task, counted from 0: ``module.continual.task = 3``.

    Args:
        train_mask: ``"task"``; no other is taken.
    """

    needs_task_identity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        if self.train_mask != "task":
            raise ValueError(
                f"`train_mask` is {self.train_mask!r}, but {type(self).__name__} keeps a head for each task, in which "
                'its classes alone compete; leave it at "task".'
            )


def check_disjoint(info: Any, who: str) -> None:
    """Refuse a stream with classes that come in several tasks.

    Raises:
        ValueError: Names some of them.
    """
    again = info.repeated_classes
    if again:
        raise ValueError(
            f"{who} keeps a head for each task, but the classes {again[:10]} are in several; use a stream whose tasks "
            "share no class, such as `ClassIncremental`, or another method."
        )


def classes_of_tasks(info: Any, outputs: int) -> Tensor:
    """``(T, outputs)`` bool: which classes are each task's own."""
    allowed = torch.zeros(info.num_tasks, outputs, dtype=torch.bool)
    for task, classes in enumerate(info.classes_per_task):
        allowed[task, list(classes)] = True
    return allowed
