"""What every scenario answers: which samples arrive in which task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.datamodules.task import Order


def by_new_class(labels: Tensor, classes_per_task: Sequence[Sequence[int]]) -> list[Tensor]:
    """Positions of the samples whose class is new in each task, sorted ascending.

    A sample belongs to the first task that holds its class; a class that no task holds is in none.

    Args:
        labels: ``(N,)`` int64.
        classes_per_task: Class ids that each task holds.
    """
    seen: set[int] = set()
    tasks: list[Tensor] = []
    for held in classes_per_task:
        new = sorted(set(held) - seen)
        seen.update(new)
        tasks.append(torch.isin(labels, torch.tensor(new, dtype=torch.int64)).nonzero().flatten())
    return tasks


class Scenario(ABC):
    """A pure function from labels (and domains) to one index tensor per task; it never sees an image.

    Attributes:
        order: ``"shuffled"``: a task's samples are shuffled anew in every epoch; ``"stream"``: they arrive once, in
            the order of the index tensor.
    """

    order: Order = "shuffled"

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
