"""Class-incremental learning where an image has several classes, and comes in each task that holds one of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.class_incremental import ClassIncremental, task_sizes
from lightning_cl.datamodules.scenarios.orders import class_order


class MultiLabelIncremental(ClassIncremental):
    """Every task brings new classes, with all training images that have one of them (COCO B0-C10, VOC B10-C2).

    An image may come in several tasks; each sees its own labels only. An evaluation image belongs to the first task
    that holds one of its classes, so after a task all images with a class seen so far are evaluated, once each.

    Args:
        num_tasks, classes_per_task, first_task_classes, class_order, seed, remainder: See :class:`ClassIncremental`.

    Raises:
        ValueError: As :class:`ClassIncremental`.
    """

    multi_label = True

    def _held(self, num_classes: int, seed: int) -> list[list[int]]:
        """Classes of each task."""
        sizes = task_sizes(num_classes, self.num_tasks, self.classes_per_task, self.first_task_classes, self.remainder)
        order = class_order(num_classes, self.class_order, seed if self.seed is None else self.seed)
        return [list(order[stop - size : stop]) for stop, size in zip(accumulate(sizes), sizes, strict=True)]

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's images, sorted ascending: all of ``(N, C)`` bool that have one of its classes."""
        return [labels[:, held].any(dim=1).nonzero().flatten() for held in self._held(num_classes, seed)]

    def task_classes(
        self, labels: Tensor, tasks: Sequence[Tensor], num_classes: int, seed: int
    ) -> tuple[tuple[int, ...], ...]:
        """Those that it brings."""
        return tuple(tuple(sorted(held)) for held in self._held(num_classes, seed))

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
            own = labels[:, list(held)].any(dim=1) & ~known
            known |= own
            tasks.append(own.nonzero().flatten())
        return tasks
