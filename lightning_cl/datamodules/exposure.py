"""What an online stream adds: which classes have arrived by now, and rows that replay adds to a batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_cl.datamodules.sampling import TrainBatch


@dataclass(frozen=True)
class Joined:
    """Rows that were added behind the stream's rows of the current training batch.

    Attributes:
        local: Number of rows that this process added.
        total: Number of rows that all processes added.
        labels: ``(total,)`` class ids of these rows, the same on all processes.
    """

    local: int
    total: int
    labels: Tensor


def arrived(arrivals: Sequence[tuple[int, int]], position: int) -> int:
    """How many of a task's new classes have a sample among its first ``position`` samples.

    Args:
        arrivals: Pairs (position of the first sample, class), sorted.
        position: Number of samples of the task that have arrived.
    """
    return bisect_left(arrivals, (position, -1))


def exposed(earlier: Iterable[int], arrivals: Sequence[tuple[int, int]], position: int) -> tuple[int, ...]:
    """Sorted classes of the earlier tasks and of a task's first ``position`` samples."""
    return tuple(sorted({*earlier, *(c for _, c in arrivals[: arrived(arrivals, position)])}))


def joint_weight(batch: TrainBatch, rows: int, joined: Joined | None, world_size: int) -> float:
    """Weigh the mean loss of a process with the joined rows; see :class:`TrainBatch`.

    Args:
        batch: This process's share of the stream's batch.
        rows: Rows of the stream's batch over all processes.
        joined: What was added; a process whose share was empty has only these rows.
        world_size: Number of processes.
    """
    if joined is None:
        return batch.weight
    return world_size * (batch.real + joined.local) / (rows + joined.total)


def refuse_other_loader(scenario: str, stream: object, given: Any, own: Any) -> None:
    """An online stream arrives in its own order, which only its own loader keeps.

    Args:
        scenario: Name of the scenario.
        stream: The DataModule.
        given: The Trainer's training loader.
        own: The one that the stream made.

    Raises:
        ValueError: If they are not the same.
    """
    if given is not own:
        raise ValueError(
            f"`{type(stream).__name__}.train_dataloader` gives a {type(given).__name__}, but {scenario} is an online "
            "stream, whose order, exposed classes and samples seen are those of the stream's own loader; leave the "
            "method as it is, and change the images with `train_transform` or `collate_fn`, the order with a scenario."
        )
