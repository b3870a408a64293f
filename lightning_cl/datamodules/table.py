"""The stream as an artefact: which sample arrives when, with which label; it can be hashed, written and replayed."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sources.labels import as_ids
from lightning_cl.datamodules.task import Order

if TYPE_CHECKING:
    from lightning_cl.datamodules.scenarios.base import Scenario

COLUMNS = ("sample", "task", "position", "label")


class StreamTable:
    """One row per arrival of a sample, sorted by task and position.

    Args:
        sample: ``(R,)`` positions in the training split, from 0.
        task: ``(R,)`` tasks, ``0 .. num_tasks - 1``, none left out.
        position: ``(R,)`` order of arrival in the first pass over the task, ``0 .. n - 1`` for its ``n`` rows.
        label: ``(R,)`` label that the learner sees.

    Raises:
        ValueError: If columns are not integers of one length, or tasks or positions leave a gap.
    """

    def __init__(self, sample: Any, task: Any, position: Any, label: Any) -> None:
        columns = {name: as_ids(v, name) for name, v in zip(COLUMNS, (sample, task, position, label), strict=True)}
        if len({len(column) for column in columns.values()}) != 1:
            raise ValueError(f"columns differ in length: { {name: len(c) for name, c in columns.items()} }.")
        rows = np.lexsort((columns["position"].numpy(), columns["task"].numpy()))
        order = torch.from_numpy(rows)
        self.sample, self.task, self.position, self.label = (columns[name][order] for name in COLUMNS)
        self._check()

    def _check(self) -> None:
        if len(self) and int(self.sample.min()) < 0:
            raise ValueError(f"`sample` has the position {int(self.sample.min())}; positions count from 0.")
        found = torch.unique(self.task).tolist()
        if found != list(range(len(found))):
            raise ValueError(f"the tasks are {found[:10]}, but they must be 0..T-1 without gaps.")
        counts = torch.bincount(self.task).tolist() if len(self) else []
        expected = torch.cat([torch.arange(n) for n in counts]) if counts else self.position
        if not torch.equal(self.position, expected):
            row = int((self.position != expected).nonzero()[0])
            raise ValueError(
                f"task {int(self.task[row])} has position {int(self.position[row])} where {int(expected[row])} is "
                "expected; the positions of a task's rows must be 0..n-1, each once."
            )

    @classmethod
    def from_tasks(cls, tasks: Sequence[Tensor], labels: Tensor) -> StreamTable:
        """From one index tensor per task, each in order of arrival, and the ``(N,)`` labels of the training split."""
        sizes = [len(task) for task in tasks]
        sample = torch.cat([as_ids(task, "tasks") for task in tasks]) if tasks else torch.empty(0, dtype=torch.int64)
        task = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
        position = torch.cat([torch.arange(n) for n in sizes]) if sizes else sample
        return cls(sample, task, position, labels[sample])

    def __len__(self) -> int:
        return len(self.sample)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StreamTable) and self.hash == other.hash

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    def __repr__(self) -> str:
        return f"StreamTable({len(self)} rows, {len(self.tasks())} tasks, hash {self.hash[:12]})"

    def tasks(self) -> list[Tensor]:
        """Positions in the training split of each task's samples, ``(n,)`` int64, in order of arrival."""
        if not len(self):
            return []
        return list(torch.split(self.sample, torch.bincount(self.task).tolist()))

    @property
    def hash(self) -> str:
        """Hexadecimal SHA-256 over column names and little-endian int64 values; the same on every machine."""
        digest = hashlib.sha256()
        for name, values in self._columns().items():
            digest.update(name.encode() + b"\0" + np.ascontiguousarray(values.numpy(), dtype="<i8").tobytes())
        return digest.hexdigest()

    def as_scenario(self, order: Order = "shuffled", evaluation: Scenario | None = None) -> Scenario:
        """Scenario that replays these tasks, and refuses a source with other labels.

        Args:
            order: ``"shuffled"``: the tasks hold these samples, shuffled anew in every epoch; ``"stream"``: they arrive
                once, in the order of the table.
            evaluation: Scenario that says which task an evaluation sample belongs to, for example
                ``DomainIncremental()``; ``None``: the task that brings its class.
        """
        from lightning_cl.datamodules.scenarios.table import TableScenario

        return TableScenario(self, order, evaluation)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write as text with a header line."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(zip(*(column.tolist() for column in self._columns().values()), strict=True))

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> StreamTable:
        """Read what :meth:`to_csv` wrote; other columns are ignored.

        Raises:
            ValueError: If a column is missing or a value is not an integer.
        """
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            _require_columns(reader.fieldnames or (), Path(path))
            rows = list(reader)
        try:
            values = {name: [int(row[name]) for row in rows] for name in COLUMNS}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{Path(path).name!r} must hold integers only: {error}.") from error
        return cls(**values)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write as Parquet.

        Raises:
            ImportError: If pyarrow is not installed.
        """
        arrow, parquet = _pyarrow()
        parquet.write_table(arrow.table({name: column.numpy() for name, column in self._columns().items()}), path)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> StreamTable:
        """Read what :meth:`to_parquet` wrote; other columns are ignored.

        Raises:
            ImportError: If pyarrow is not installed.
            ValueError: If a column is missing or does not hold integers.
        """
        _, parquet = _pyarrow()
        _require_columns(parquet.read_schema(path).names, Path(path))
        table = parquet.read_table(path, columns=list(COLUMNS))
        return cls(**{name: torch.from_numpy(table[name].to_numpy().copy()) for name in COLUMNS})

    def _columns(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in COLUMNS}


def _require_columns(found: Sequence[str], path: Path) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise ValueError(f"{path.name!r} lacks the columns {missing}; found {list(found)}, expected {list(COLUMNS)}.")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: `pip install lightning-cl[parquet]`; or use `to_csv` and `from_csv`."
        ) from error
    return pyarrow, pyarrow.parquet
