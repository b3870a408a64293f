"""The protocol of a stream: what a fit's callbacks ask of it; :class:`ContinualDataModule` is one."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from lightning_cl.datamodules.exposure import Joined
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.task import Schedule, StreamInfo, Task


class Stream(Protocol):
    """Tasks and time, and the batches that each process gets."""

    source: Source
    scenario: Scenario
    trainer: Any
    joined: Joined | None
    last_task: int | None
    early_stopping: Literal["stream", "task"]
    reduce_on_plateau: Literal["stream", "task"]
    repeats_batches: bool
    loaded: dict[str, int]
    _train_loader: Any

    @property
    def info(self) -> StreamInfo:
        """Number of tasks and classes, names, classes of each task."""

    @property
    def schedule(self) -> Schedule:
        """Epochs of each task."""

    @property
    def task(self) -> Task:
        """The current task."""

    @property
    def task_index(self) -> int:
        """Number of the current task, from 0."""

    @property
    def online(self) -> bool:
        """Whether samples arrive in one ordered pass."""

    @property
    def num_validated_tasks(self) -> int:
        """How many tasks the validation covers now."""

    @property
    def exposed_classes(self) -> tuple[int, ...]:
        """Classes that have arrived."""

    def plan_schedule(self, known: Schedule | None = None) -> None:
        """Plan the epochs of all tasks anew."""

    def shorten(self, task: int, epochs: int) -> None:
        """End a task after so many epochs."""

    def expose(self, task: int, batch_idx: int | None) -> bool:
        """Note which classes have arrived; whether some are new."""

    def train_weight(self, batch_idx: int) -> float:
        """Factor of a process's mean loss, with which the mean over the processes is that over the global batch."""

    def train_classes(self, batch_idx: int) -> list[int]:
        """Sorted classes of a training batch, over all processes."""

    def check_labels(self, batch: Any, batch_idx: int, moved: bool = False) -> None:
        """Compare the labels of a batch with the plan's."""

    def steps_of_tasks(self) -> list[int]:
        """Optimiser steps of each task."""

    @property
    def unfinished_task(self) -> int | None:
        """A task that was begun and not finished."""
