"""Extending a stream: tasks of another source behind the existing ones, which stay exactly as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.scenarios.class_incremental import ClassIncremental
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.extended import ExtendedSource
from lightning_cl.datamodules.sources.past_tasks import PastTasks
from lightning_cl.datamodules.stream_plan import (
    EvalData,
    Stage,
    StreamLayout,
    first_arrivals,
    lay_out,
    newly_seen,
)
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.datamodules.task import Schedule, StreamInfo

Epochs = int | Sequence[int] | None


class ExtendedScenario(Scenario):
    """Class-incremental scenarios one behind the other, each for its part of an :class:`ExtendedSource`.

    Args:
        parts: One for each part of the source.
        epochs: For each part but the first its epochs per task; ``None``: as before.

    Raises:
        ValueError: If a part is not class-incremental.
    """

    def __init__(self, parts: Sequence[Scenario], epochs: Sequence[Epochs]) -> None:
        for scenario in parts:
            if not isinstance(scenario, ClassIncremental):
                raise ValueError(
                    f"a stream can only be extended where every task brings classes of its own, and "
                    f"{type(scenario).__name__} is not `ClassIncremental`; make a new stream of all the data instead."
                )
        self.parts, self.epochs = tuple(parts), tuple(epochs)

    @classmethod
    def behind(cls, scenario: Scenario, added: Scenario, epochs: Epochs) -> ExtendedScenario:
        """``added`` behind ``scenario``, which may be extended already."""
        if isinstance(scenario, cls):
            return cls([*scenario.parts, added], [*scenario.epochs, epochs])
        return cls([scenario, added], [epochs])

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Not from labels alone: see :func:`lay_out_stream`."""
        raise NotImplementedError("an extended stream is laid out part by part, with `lay_out_stream`.")


def lay_out_stream(source: Source, scenario: Scenario, seed: int, val_split: float = 0.0) -> StreamLayout:
    """:func:`lay_out`, part by part where the stream was extended; the first part is as it would be alone."""
    if not isinstance(scenario, ExtendedScenario):
        return lay_out(source, scenario, seed, val_split)
    assert isinstance(source, ExtendedSource)
    layouts = [
        part.layout() if isinstance(part, PastTasks) else lay_out(part, rule, seed, val_split)
        for part, rule in zip(source.parts, scenario.parts, strict=True)
    ]
    return join_layouts(source, layouts)


def join_layouts(source: ExtendedSource, layouts: Sequence[StreamLayout]) -> StreamLayout:
    """One layout of all parts.

    Evaluation samples stay in the task of their own part, so what old tasks are evaluated on never changes, also
    where an old class comes again by its name.

    Args:
        source: After its ``setup``.
        layouts: Of each part, in its own positions and labels.
    """
    train_index = tuple(
        index + offset
        for layout, offset in zip(layouts, source.offsets["train"], strict=False)
        for index in layout.train_index
    )
    classes = tuple(
        tuple(sorted(ids[list(held)].tolist()))
        for layout, ids in zip(layouts, source.class_ids, strict=True)
        for held in layout.info.classes_per_task
    )
    new_classes = newly_seen(classes)
    labels = source.train_labels
    history = _history(layouts, source.class_ids)
    info = StreamInfo(
        len(train_index), source.num_classes, source.class_names, classes, history[-1][1], tuple(history[:-1])
    )
    return StreamLayout(
        train_index,
        {stage: _evaluation(source, layouts, stage) for stage in layouts[0].evaluation},
        new_classes,
        tuple(first_arrivals(labels[index], new) for index, new in zip(train_index, new_classes, strict=True)),
        StreamTable.from_tasks(train_index, labels),
        info,
    )


def _evaluation(source: ExtendedSource, layouts: Sequence[StreamLayout], stage: Stage) -> EvalData:
    split = layouts[0].evaluation[stage].split
    index = tuple(
        members + offset
        for layout, offset in zip(layouts, source.offsets[split], strict=False)
        for members in layout.evaluation[stage].index
    )
    labels = source.train_labels if split == "train" else source.test_labels
    task_of = torch.full((len(labels),), -1)
    for task, members in enumerate(index):
        task_of[members] = task
    return EvalData(split, index, labels, task_of)


def _history(layouts: Sequence[StreamLayout], class_ids: Sequence[Tensor]) -> list[tuple[int, str]]:
    """Number of tasks and fingerprint of the stream after each part; each fingerprint is of all that came before."""
    tasks, fingerprint = layouts[0].info.num_tasks, layouts[0].info.fingerprint
    history = [*layouts[0].info.extended_from, (tasks, fingerprint)]
    for layout, ids in zip(layouts[1:], class_ids[1:], strict=True):
        text = f"{fingerprint} extended by {layout.info.fingerprint} as {ids.tolist()}"
        tasks, fingerprint = tasks + layout.info.num_tasks, hashlib.sha256(text.encode()).hexdigest()
        history.append((tasks, fingerprint))
    return history


def refuse_smaller_state(info: StreamInfo, own: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Say what to do where no method is there to let a head grow.

    Raises:
        ValueError: If the stream was extended and a saved tensor has fewer rows than the module's.
    """
    shapes = {name: (own[name].shape, v.shape) for name, v in saved.items() if isinstance(v, Tensor) and name in own}
    smaller = [name for name, (here, there) in shapes.items() if here != there]
    if info.extended_from and smaller:
        raise ValueError(
            f"`{smaller[0]}` has the shape {tuple(shapes[smaller[0]][1])} in the checkpoint and "
            f"{tuple(shapes[smaller[0]][0])} here, and without a method nothing grows with an extended stream; use "
            '`FineTuning(train_mask="all")` for plain fine-tuning, from the start.'
        )


def plan_epochs(first: int | Sequence[int], added: Sequence[Epochs], info: StreamInfo) -> Schedule:
    """The schedule of a stream that may have been extended.

    Args:
        first: Epochs per task of the first part: one number, or one per task.
        added: As ``first``, for each later part; ``None``: the number of the part before it.
        info: The stream.

    Raises:
        ValueError: If a list does not match the tasks of its part, or ``None`` follows a list.
    """
    borders = [0, *(tasks for tasks, _ in info.extended_from), info.num_tasks]
    epochs: list[int] = []
    given = first
    for part, (start, stop) in enumerate(pairwise(borders)):
        own = added[part - 1] if part else first
        if own is None and not isinstance(given, int):
            raise ValueError(
                f"`epochs_per_task` was {list(given)}, which says nothing about the {stop - start} added tasks; pass "
                "`epochs_per_task=` to `extend`."
            )
        given = given if own is None else own
        epochs.extend(Schedule.build(given, stop - start).epochs)
    return Schedule(tuple(epochs))
