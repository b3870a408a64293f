"""Class-incremental learning where an image has several classes, and comes in each task that holds one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.class_incremental import ClassIncremental


class MultiLabelIncremental(ClassIncremental):
    """Every task brings new classes, with all training images that have one of them (COCO B0-C10, VOC B10-C2).

    An image may come in several tasks; each sees its own labels only. An evaluation image belongs to the first task
    that holds one of its classes, so after a task all images with a class seen so far are evaluated, once each.

    The arguments are those of :class:`ClassIncremental`.

    Raises:
        ValueError: As :class:`ClassIncremental`.
    """

    multi_label = True

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's images, sorted ascending: all of ``(N, C)`` bool that have one of its classes."""
        return [_with_any(labels, held).nonzero().flatten() for held in self.held_classes(num_classes, seed)]

    def task_classes(
        self, labels: Tensor, tasks: Sequence[Tensor], num_classes: int, seed: int
    ) -> tuple[tuple[int, ...], ...]:
        """Those that it brings."""
        return tuple(tuple(sorted(held)) for held in self.held_classes(num_classes, seed))

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions of the images whose first class comes in each task."""
        known, tasks = torch.zeros(len(labels), dtype=torch.bool), []
        for held in classes_per_task:
            own = _with_any(labels, held) & ~known
            known |= own
            tasks.append(own.nonzero().flatten())
        return tasks


def _with_any(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """``(N,)`` bool: which rows of ``(N, C)`` bool have one of the classes."""
    return labels[:, list(classes)].any(dim=1)
