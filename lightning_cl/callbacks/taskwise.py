"""Bases of methods by which classes compete in training: those of a task, or all that were seen."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask


@dataclass(eq=False)
class TaskwiseMethod(ContinualMethod):
    """A method under which a task's classes compete among themselves, and optimisers begin anew with every task."""

    _: KW_ONLY
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True


@dataclass(eq=False)
class SeenClassesMethod(ContinualMethod):
    """A method under which all classes seen compete, and optimisers begin anew with every task."""

    _: KW_ONLY
    train_mask: TrainMask = "seen"
    reset_optimizer: bool = True
