"""A stream that was written down earlier, replayed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from lightning_cl.datamodules.argument_kinds import shown
from lightning_cl.datamodules.scenarios.base import Scenario, check_order
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.datamodules.task import Order


class TableScenario(Scenario):
    """Replays the tasks of a :class:`StreamTable`; made by :meth:`StreamTable.as_scenario`.

    Args:
        table: The stream.
        order: ``"shuffled"``: each task's samples, ascending, to be shuffled anew in every epoch; ``"stream"``: in the
            table's order of arrival.
        evaluation: Scenario that says which task an evaluation sample belongs to, for example ``DomainIncremental()``;
            ``None``: the task that brings its class.

    Raises:
        ValueError: If ``order`` is unknown or ``table`` is no table; and from :meth:`train_tasks`, if the table was
            not made from these data.
    """

    needs_classes = False

    def __init__(self, table: StreamTable, order: Order = "shuffled", evaluation: Scenario | None = None) -> None:
        check_order(order)
        if not isinstance(table, StreamTable):
            path = os.fspath(table) if isinstance(table, (str, os.PathLike)) else "stream.csv"
            how = f"StreamTable.from_{'parquet' if path.endswith('.parquet') else 'csv'}({path!r})"
            raise ValueError(f"`table` is {shown(table)}; expected a StreamTable: `TableScenario({how})`.")
        self.table, self.order, self.evaluation = table, order, evaluation

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples, exactly those of the table."""
        outside = self.table.sample[self.table.sample >= len(labels)]
        if len(outside):
            raise ValueError(
                f"the table has the sample {int(outside.max())} but the training split has {len(labels)} samples; "
                "replay it with the source that it was made from."
            )
        differs = (labels[self.table.sample] != self.table.label).nonzero().flatten()
        if len(differs):
            sample, label = int(self.table.sample[differs[0]]), int(self.table.label[differs[0]])
            raise ValueError(
                f"{len(differs)} of {len(self.table)} labels in the table differ from the source's: the first is "
                f"sample {sample}, {label} in the table and {int(labels[sample])} in the source; replay it with the "
                "source that it was made from."
            )
        tasks = self.table.tasks()
        return tasks if self.order == "stream" else [task.sort().values for task in tasks]

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions of each task's evaluation samples, as the ``evaluation`` scenario says."""
        if self.evaluation is None:
            return super().eval_tasks(labels, domains, num_classes, seed, classes_per_task)
        return self.evaluation.eval_tasks(labels, domains, num_classes, seed, classes_per_task)
