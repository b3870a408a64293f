"""The base of methods that learn every task by itself."""

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
