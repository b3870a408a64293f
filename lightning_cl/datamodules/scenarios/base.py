"""What every scenario answers: which samples arrive in which task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_cl.datamodules.task import Order

if TYPE_CHECKING:
    from lightning_cl.datamodules.sources.base import Source


def by_new_class(labels: Tensor, classes_per_task: Sequence[Sequence[int]]) -> list[Tensor]:
    """Positions of the samples whose class is new in each task, sorted ascending.

    A sample belongs to the first task that holds its class; a class that no task holds is in none.

    Args:
        labels: ``(N,)`` int64.
        classes_per_task: Class ids that each task holds.
    """
    highest = max([int(labels.max()) if len(labels) else -1, *(c for held in classes_per_task for c in held)])
    first = torch.full((highest + 1,), -1)  # the first task that holds each class
    for task in reversed(range(len(classes_per_task))):
        first[list(classes_per_task[task])] = task
    task_of = first[labels]
    counts = torch.bincount(task_of + 1, minlength=len(classes_per_task) + 1)
    # One stable sort, however many tasks: positions stay ascending within each.
    return list(task_of.argsort(stable=True).split(counts.tolist()))[1:]


def check_every_class(labels: Tensor, num_classes: int) -> None:
    """Raise a ``ValueError`` if a class has no training sample."""
    missing = sorted(set(range(num_classes)) - set(torch.unique(labels).tolist()))
    if missing:
        raise ValueError(f"the classes {missing[:10]} have no training samples; leave them out of the numbering.")


def check_order(order: str) -> None:
    """Raise a ``ValueError`` if ``order`` is unknown."""
    if order not in ("shuffled", "stream"):
        raise ValueError(f"`order` is {order!r}; expected 'shuffled' or 'stream'.")


def warn(message: str) -> None:
    """Say something once, on rank zero; Lightning is imported here, so that a scenario alone does not need it."""
    from lightning_cl.namespace import rank_zero_warn

    rank_zero_warn(message)


def warn_of_absent(name: str, labels: Tensor, num_classes: int, tasks: Sequence[Tensor]) -> None:
    """Say which classes no task of the scenario ``name`` holds."""
    held = torch.zeros(num_classes, dtype=torch.bool)
    for members in tasks:
        held[labels[members]] = True
    absent = (~held).nonzero().flatten().tolist()
    if absent:
        warn(
            f"{name} has no task with the classes {absent}, which were never drawn; use more tasks or another `seed` "
            "if the model shall see them."
        )


class Scenario(ABC):
    """A pure function from labels (and domains) to one index tensor per task; it never sees an image.

    Attributes:
        order: ``"shuffled"``: a task's samples are shuffled anew in every epoch; ``"stream"``: they arrive once, in
            the order of the index tensor.
        remarks: What a reader of the results must know about the stream.
        few_shot: Task 0 is a base session and the others have few samples, so few-shot metrics are reported, too.
        multi_label: It takes sources with several labels a sample: labels are ``(N, C)`` bool then.
        requests: Class ids that the last tasks ask to forget, one tuple for each of these tasks.
        labelled_tasks: How many tasks, the first ones, come with labels for training; ``None``: all.
        evaluates_all: Every validation is over the evaluation samples of all tasks, also of those to come.
        needs_classes: It deals out samples by their classes, so it takes no source without.
    """

    order: Order = "shuffled"
    remarks: tuple[str, ...] = ()
    few_shot: bool = False
    multi_label: bool = False
    requests: tuple[tuple[int, ...], ...] = ()
    labelled_tasks: int | None = None
    evaluates_all: bool = False
    needs_classes: bool = True

    def for_source(self, source: Source) -> Scenario:
        """The scenario to use with an opened source; one that goes by file names returns another here."""
        return self

    @abstractmethod
    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's training samples.

        Args:
            labels: ``(N,)`` int64 labels of the training split.
            domains: ``(N,)`` int64 domains of the training split, or ``None``.
            num_classes: Number of classes; labels are ``0 .. num_classes - 1``.
            seed: Seed of the stream; the same seed gives the same tasks on every machine.

        Returns:
            One int64 tensor per task, none of them empty.
        """

    def task_classes(
        self, labels: Tensor, tasks: Sequence[Tensor], num_classes: int, seed: int
    ) -> tuple[tuple[int, ...], ...]:
        """Sorted ids of the classes that each task holds; by default those of its samples.

        Of a task without labels it is those that are known by then, or all classes if none came with labels.

        Args:
            labels: As :meth:`train_tasks` was given.
            tasks: What it gave.
            num_classes: Number of classes.
            seed: Seed of the stream.
        """
        held = [tuple(labels[index].unique().tolist()) for index in tasks[: self.labelled_tasks]]
        known = tuple(sorted({c for classes in held for c in classes})) or tuple(range(num_classes))
        return (*held, *(known for _ in tasks[len(held) :]))

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions of each task's evaluation samples; by default a sample belongs to the task that brings its class.

        Args:
            labels: ``(N,)`` int64 labels of the evaluation split.
            domains: ``(N,)`` int64 domains of the evaluation split, or ``None``.
            num_classes: Number of classes.
            seed: Seed of the stream.
            classes_per_task: Class ids that each training task holds.

        Returns:
            One int64 tensor per task; a task without evaluation samples has an empty one.
        """
        return by_new_class(labels, classes_per_task)
