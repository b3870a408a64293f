"""The layout of a stream: which training and evaluation samples belong to which task. A pure function of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import hold_out
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.scenarios.table import TableScenario
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.datamodules.task import HIDDEN_LABEL, StreamInfo

Stage = Literal["val", "test", "anytime"]


@dataclass(frozen=True)
class EvalBatch:
    """What one process evaluates in one batch; padding is never included.

    Attributes:
        index: ``(B,)`` position of each sample in its split.
        labels: ``(B,)`` class ids.
        tasks: ``(B,)`` task ids.
    """

    index: Tensor
    labels: Tensor
    tasks: Tensor


@dataclass(frozen=True)
class EvalData:
    """Evaluation samples of a stage.

    Attributes:
        split: The split that ``index`` points into.
        index: For each task the positions of its samples.
        labels: ``(N_split,)`` label of every sample of the split.
        task_of: ``(N_split,)`` task of every sample of the split; -1 for samples that are not evaluated.
    """

    split: Split
    index: tuple[Tensor, ...]
    labels: Tensor
    task_of: Tensor

    def __len__(self) -> int:
        return sum(len(members) for members in self.index)

    def batch(self, index: Tensor) -> EvalBatch:
        """Labels and tasks of the samples at ``index``."""
        return EvalBatch(index, self.labels[index], self.task_of[index])


@dataclass(frozen=True)
class StreamLayout:
    """The stream, laid out.

    Attributes:
        train_index: For each task the positions of its training samples, in order of arrival.
        evaluation: Samples of the stages ``val`` and ``test``; ``anytime`` draws on those of ``val``.
        new_classes: For each task the classes that no earlier task held.
        arrivals: For each task the new classes in order of arrival, as pairs ``(position of the first sample in
            the task, class)``; only meaningful for an online stream, the order of which is fixed.
        table: The training stream as an artefact.
        info: What methods may know.
        hidden: ``(N_train,)`` bool: samples whose labels the learner is not given; ``None``: it is given all.
    """

    train_index: tuple[Tensor, ...]
    evaluation: Mapping[Stage, EvalData]
    new_classes: tuple[tuple[int, ...], ...]
    arrivals: tuple[tuple[tuple[int, int], ...], ...]
    table: StreamTable
    info: StreamInfo
    hidden: Tensor | None = None


def lay_out(source: Source, scenario: Scenario, seed: int, val_split: float = 0.0) -> StreamLayout:
    """Apply a scenario to the labels of an opened source.

    Args:
        source: After its ``setup``.
        scenario: How the samples arrive.
        seed: For the scenario and the split.
        val_split: Fraction of the training data of each class that becomes the ``val`` stage; 0: the test split is.

    Raises:
        ValueError: If labels are outside the range or a class has no training sample; if the scenario does not fit
            them, or gives a task without samples or an evaluation sample to two tasks; or if a task that brings
            classes has no evaluation sample.
    """
    labels, domains = source.train_labels, source.train_domains
    source.check_classes(labels, source.test_labels, source.class_names)
    _check_kinds(source, scenario)
    scenario = scenario.for_source(source)
    kept, held = torch.arange(len(labels)), None
    if val_split:
        if isinstance(scenario, TableScenario):
            raise ValueError(
                "a replayed stream table fixes every training sample, so `val_split` cannot hold any out; set "
                "`val_split=0`, or make the table from a stream that had it."
            )
        kept, held = hold_out(labels, val_split, seed)
    given, count = source.targets("train")[kept], source.num_classes
    tasks = scenario.train_tasks(given, None if domains is None else domains[kept], count, seed)
    _check_parts(tasks, len(kept), scenario, "training")
    if source.sequential:
        _check_sequence(source, scenario, tasks, val_split)
    train_index = tuple(kept[members] for members in tasks)
    hidden = _hidden(train_index, scenario.labelled_tasks, len(labels))
    classes = scenario.task_classes(given, tasks, count, seed)
    new_classes = newly_seen(classes)
    test = _evaluation(source, scenario, seed, classes, "test", torch.arange(len(source.test_labels)))
    val = test if held is None else _evaluation(source, scenario, seed, classes, "train", held)
    table = _table(train_index, labels if hidden is None else labels.masked_fill(hidden, HIDDEN_LABEL))
    fingerprint = _fingerprint(source, table, (val, test))
    asked = ((),) * (len(train_index) - len(scenario.requests)) + scenario.requests if scenario.requests else ()
    names = tuple(source.class_names)
    blind = () if hidden is None else tuple(range(scenario.labelled_tasks or 0, len(train_index)))
    info = StreamInfo(
        len(train_index),
        source.num_classes,
        names,
        classes,
        fingerprint,
        forgets_per_task=asked,
        unlabelled_tasks=blind,
        levels=source.levels,
    )
    arrivals = tuple(first_arrivals(labels[index], new) for index, new in zip(train_index, new_classes, strict=True))
    evaluation: dict[Stage, EvalData] = {"val": val, "test": test, "anytime": val}
    return StreamLayout(train_index, evaluation, new_classes, arrivals, table, info, hidden)


def _hidden(train_index: Sequence[Tensor], labelled: int | None, count: int) -> Tensor | None:
    """``(N_train,)`` bool: samples of the tasks behind the labelled ones."""
    if labelled is None:
        return None
    hidden, given = (torch.zeros(count, dtype=torch.bool) for _ in range(2))
    for task, index in enumerate(train_index):
        (given if task < labelled else hidden)[index] = True
    both = int((hidden & given).sum())
    if both:
        raise ValueError(
            f"{both} training samples are both in tasks with labels and in tasks without, so their labels would be "
            "known; let the scenario give each of them to one kind of task."
        )
    return hidden


def _check_kinds(source: Source, scenario: Scenario) -> None:
    """Refuse no classes, or several labels a sample, to a scenario for one, and the reverse."""
    names = type(source).__name__, type(scenario).__name__
    if scenario.needs_classes and not source.has_classes:
        raise ValueError(
            f"{names[0]} has no classes, but {names[1]} deals out samples by their classes; use `DomainIncremental` "
            "or `SampleIncremental`, or give the source a class for each sample."
        )
    if source.multi_label and not scenario.multi_label:
        raise ValueError(
            f"{names[0]} has several labels a sample, but {names[1]} deals out samples of one label each; use "
            "`MultiLabelIncremental`."
        )
    if scenario.multi_label and not source.multi_label:
        raise ValueError(
            f"{names[1]} is for sources with several labels a sample, but {names[0]} has one each; use "
            "`ClassIncremental`, or a `MultiLabelSource`."
        )


def _check_sequence(source: Source, scenario: Scenario, tasks: Sequence[Tensor], val_split: float) -> None:
    """Refuse to sort, shuffle or hold out samples that are read one after the other."""
    arrival = torch.cat(list(tasks))
    if val_split or scenario.order != "stream" or not bool((arrival[1:] > arrival[:-1]).all()):
        sorts = f"`val_split={val_split}` picks samples" if val_split else f"{type(scenario).__name__} sorts samples"
        raise ValueError(
            f"{type(source).__name__} is read from its start to its end, but {sorts} by position; use "
            '`SampleIncremental(num_tasks, order="stream")` without `val_split`, or save the samples as a data set '
            "with positions."
        )


def first_arrivals(labels: Tensor, classes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Pairs ``(position, class)`` of the first sample of each of the ``classes`` in ``(N,)`` labels, by position."""
    present, first = np.unique(labels.numpy(), return_index=True)  # the first of equal values
    wanted = set(classes)
    return tuple(sorted((int(at), int(c)) for c, at in zip(present, first, strict=True) if int(c) in wanted))


def newly_seen(classes_per_task: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """For each task the classes that no earlier task held."""
    seen: set[int] = set()
    new = []
    for classes in classes_per_task:
        new.append(tuple(c for c in classes if c not in seen))
        seen.update(classes)
    return tuple(new)


def _evaluation(
    source: Source,
    scenario: Scenario,
    seed: int,
    classes_per_task: Sequence[Sequence[int]],
    split: Split,
    index: Tensor,
) -> EvalData:
    training = split == "train"
    labels = source.train_labels if training else source.test_labels
    domains = source.train_domains if training else source.test_domains
    chosen_domains = None if domains is None else domains[index]
    parts = scenario.eval_tasks(
        source.targets(split)[index], chosen_domains, source.num_classes, seed, classes_per_task
    )
    _check_parts(parts, len(index), scenario, "evaluation", len(classes_per_task))
    asked = {c for request in scenario.requests for c in request}  # evaluated in the tasks that ask for it
    kept = [set(new) - asked for new in newly_seen(classes_per_task)]
    empty = [task for task, members in enumerate(parts) if len(members) == 0 and kept[task]]
    if empty and source.needs_test:
        raise ValueError(
            f"task(s) {empty} have no evaluation sample in the {split} split; add some, or set `val_split` to hold "
            "out training data."
        )
    members = tuple(index[part] for part in parts)
    task_of = torch.full((len(labels),), -1)
    for task, positions in enumerate(members):
        task_of[positions] = task
    return EvalData(split, members, labels, task_of)


def _check_parts(
    parts: Sequence[Tensor], count: int, scenario: Scenario, what: str, num_tasks: int | None = None
) -> None:
    """Refuse what a scenario must not return: it may be one that a user wrote."""
    name, wanted = type(scenario).__name__, "at least one" if num_tasks is None else str(num_tasks)
    if len(parts) == 0 or (num_tasks is not None and len(parts) != num_tasks):
        raise ValueError(f"{name} gave {len(parts)} {what} tasks; expected {wanted}.")
    for task, part in enumerate(parts):
        if len(part) == 0 and num_tasks is None:
            raise ValueError(f"{name} gave task {task} no {what} sample; every task needs at least one.")
        if len(part) and not 0 <= int(part.min()) <= int(part.max()) < count:
            raise ValueError(
                f"{name} gave task {task} the {what} positions {int(part.min())}..{int(part.max())}, but there are "
                f"{count} samples; positions count from 0 in the labels that the scenario is given."
            )
    if num_tasks is not None and int(torch.bincount(torch.cat(list(parts)), minlength=1).max()) > 1:
        raise ValueError(f"{name} gave an {what} sample to two tasks; every sample is evaluated in one task at most.")


def _table(train_index: Sequence[Tensor], labels: Tensor) -> StreamTable:
    sample = torch.cat(list(train_index))
    sizes = torch.tensor([len(index) for index in train_index])
    return StreamTable(
        sample=sample,
        task=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        position=torch.cat([torch.arange(int(size)) for size in sizes]),
        label=labels[sample],
    )


def _fingerprint(source: Source, table: StreamTable, evaluation: Sequence[EvalData]) -> str:
    digest = hashlib.sha256(f"{table.hash} {source.digest()}".encode())
    for data in evaluation:
        for members in data.index:
            digest.update(members.numpy().astype("<i8").tobytes() + b"|")
    return digest.hexdigest()
