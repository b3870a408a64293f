"""Streams in the order of the data: every task brings the next samples, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.datamodules.argument_kinds import as_count
from lightning_cl.datamodules.scenarios.base import Scenario, check_order
from lightning_cl.datamodules.task import Order


class SampleIncremental(Scenario):
    """Every task brings the next part of the samples, in the order in which the source has them (a time series, say).

    It asks for no class and no domain. Parts are consecutive and their sizes differ by at most one, the larger ones
    first; evaluation samples are shared out in the same way.

    Args:
        num_tasks: Number of tasks.
        order: ``"shuffled"``: a task's samples are shuffled anew in every epoch; ``"stream"``: an online stream, one
            pass over the samples as they come, which data that is only read from its start needs.

    Raises:
        ValueError: If ``num_tasks`` is below 1 or ``order`` unknown; from :meth:`train_tasks`, if there are fewer
            samples than tasks.
    """

    needs_classes = False

    def __init__(self, num_tasks: int, order: Order = "shuffled") -> None:
        if as_count("num_tasks", num_tasks) < 1:
            raise ValueError(f"`num_tasks` is {num_tasks}; give at least 1.")
        check_order(order)
        self.num_tasks, self.order = num_tasks, order

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Consecutive positions, none left out."""
        if len(labels) < self.num_tasks:
            raise ValueError(f"`num_tasks` is {self.num_tasks} but there are {len(labels)} samples; use fewer tasks.")
        return list(torch.arange(len(labels)).tensor_split(self.num_tasks))

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """As the training samples."""
        return list(torch.arange(len(labels)).tensor_split(self.num_tasks))
