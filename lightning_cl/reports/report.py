"""The record of a run: what was learned and how that was measured, as files for a person and a program."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.leftovers import REPORT_FILE
from lightning_cl.metrics.functional.accuracy import accuracy_per_stage
from lightning_cl.metrics.functional.any_metric import metric_definitions, summarise_metric
from lightning_cl.metrics.functional.summary import ALL_DEFINITIONS, summarise
from lightning_cl.reports.anytime_plots import plot_section
from lightning_cl.reports.confusion import class_accuracy_csv, confusion_csv, plot_confusion
from lightning_cl.reports.fact_pictures import FILES as FACT_FILES
from lightning_cl.reports.fact_pictures import fact_pictures
from lightning_cl.reports.files import to_json, write_files
from lightning_cl.reports.files import write_text as _write_text
from lightning_cl.reports.plots import plot_accuracy_curves, plot_accuracy_matrix
from lightning_cl.reports.report_fields import check_fields
from lightning_cl.reports.report_texts import curve_csv, installed_versions, matrix_csv
from lightning_cl.reports.units import Unit

FILE_NAME = REPORT_FILE
FORMAT_VERSION = 1
#: Every file that a report can have.
FAMILY = (
    "accuracy_matrix.csv",
    "accuracy_matrix_class_il.csv",
    "accuracy_matrix_task_il.csv",
    "accuracy_matrix.png",
    "accuracy_curves.png",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "class_accuracy.csv",
    "anytime_curve.csv",
    "anytime_curve.png",
    *FACT_FILES,
    FILE_NAME,
)
#: Label spaces and what they are called.
SPACES = {"class_il": "class-incremental", "task_il": "task-incremental", "domain_il": "domain-incremental"}
_MATRICES = ("class_il", "task_il", "evaluated", "confusion", "levels")
_ROWS = ("baseline", "sizes")


@dataclass
class ContinualReport:
    """Results of one run over a stream of ``T`` tasks and what is needed to judge them.

    Accuracies are fractions in [0, 1], tasks count from 0, NaN is "not measured". With a ``metric`` its values are in
    the place of accuracies, in ``class_il`` whatever the label space.

    Attributes:
        class_il: ``(T, T)`` accuracies, row "after task", column "on task", all classes seen so far to choose from.
        task_il: The same with the classes of each sample's task to choose from.
        baseline: ``(T,)`` accuracies before any training, in the label space of ``task_il`` if given, else of
            ``class_il``.
        sizes: ``(T,)`` test samples of each task.
        evaluated: ``(T, T)`` test samples that were counted in each cell; fewer than ``sizes`` is a partial evaluation.
        confusion: ``(C, C)`` answers in the last validation, a row for each true class; None: not counted.
        levels: ``(T, L)`` accuracies at the levels of the label tree, coarsest first, after each task; None: no tree,
            or too many classes to count.
        label_space: Which of the two matrices is the headline: ``"class_il"``, ``"task_il"`` or ``"domain_il"``.
        few_shot: Task 0 is the base session of a few-shot stream, so its metrics are given, too.
        requests: How many of the tasks, the last ones, ask to forget something.
        unlabelled: Tasks whose training data had no labels.
        metrics: Name to value; filled by :func:`summarise` when empty.
        task_classes: The classes of each task.
        class_names: The name of every class.
        samples_seen: Training samples that were shown in each task, repeats counted.
        trainable_parameters: Number of trained parameters at the end.
        total_parameters: Number of all parameters at the end.
        stream_hash: Fingerprint of the stream; equal hashes are the same samples in the same order.
        methods: Name of each method to its configuration, in the order of the callbacks.
        anytime: The accuracy inside the run, as :meth:`AnytimeCurve.section` gives it; None if it was not evaluated.
        facts: Name of each method to what it says of itself after the run, such as the bytes that it stored.
        versions: Package to version.
        notes: What a reader must know, for instance "predictions depend on the batch".
        protocol: What ``ProtocolGuard`` found, see :meth:`ProtocolCard.to_dict`.
        metric: Name of the metric that was measured; None: the accuracy.
        higher_is_better: Its direction.
    """

    class_il: Tensor | None = None
    task_il: Tensor | None = None
    baseline: Tensor | None = None
    sizes: Tensor | None = None
    evaluated: Tensor | None = None
    confusion: Tensor | None = None
    levels: Tensor | None = None
    label_space: str = "class_il"
    few_shot: bool = False
    requests: int = 0
    unlabelled: list[int] = field(default_factory=list)
    metrics: dict[str, float | None] = field(default_factory=dict)
    task_classes: list[list[int]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    samples_seen: list[int] = field(default_factory=list)
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    stream_hash: str | None = None
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    anytime: dict[str, Any] | None = None
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=installed_versions)
    notes: list[str] = field(default_factory=list)
    protocol: Mapping[str, Any] | None = None
    metric: str | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if self.class_il is None and self.task_il is None:
            raise ValueError("A report needs an accuracy matrix; give `class_il`, `task_il` or both.")
        if self.label_space not in SPACES:
            raise ValueError(f"`label_space` is {self.label_space!r}; give one of {', '.join(map(repr, SPACES))}.")
        if not self.metrics and self.metric is not None:
            values = summarise_metric(self.matrix, self.higher_is_better, self.sizes, self.baseline)
            self.metrics = {f"{self.space}/{name}": value for name, value in values.items()}
        elif not self.metrics:
            self.metrics = summarise(
                self.class_il,
                self.task_il,
                self.sizes,
                self.baseline,
                self.few_shot,
                self.requests,
                self.unlabelled,
                levels=self.levels,
            )

    @property
    def unit(self) -> Unit:
        """What the matrix holds, and how it is shown."""
        return Unit(self.metric, self.higher_is_better)

    @property
    def definitions(self) -> dict[str, str]:
        """What the metrics are, by name without the label space."""
        return ALL_DEFINITIONS if self.metric is None else metric_definitions(self.higher_is_better)

    @property
    def matrix_name(self) -> str:
        """The field of the headline: ``task_il`` if that is the label space or all there is, else ``class_il``."""
        told = self.label_space == "task_il" and self.task_il is not None
        return "task_il" if told or self.class_il is None else "class_il"

    @property
    def space(self) -> str:
        """What stands before the slash in the names of the headline's metrics."""
        return self.matrix_name if self.metric is None else self.metric

    @property
    def setting(self) -> str:
        """What the headline's label space is called, for instance ``"class-incremental"``."""
        return SPACES["domain_il" if self.label_space == "domain_il" else self.matrix_name]

    @property
    def title(self) -> str:
        """A short title of a picture: the methods, if they are few, and the setting."""
        methods = " + ".join(self.methods)
        measured = "accuracy" if self.metric is None else self.metric
        return f"{methods}, {self.setting}" if 0 < len(methods) <= 24 else f"{self.setting.capitalize()} {measured}"

    @property
    def matrix(self) -> Tensor:
        """The headline, ``(T, T)``."""
        headline: Tensor = getattr(self, self.matrix_name)
        return headline

    @property
    def has_data(self) -> Tensor | None:
        """``(T,)`` bool: tasks with test samples, which means over tasks count; None when the sizes are not known."""
        return None if self.sizes is None else self.sizes > 0

    @property
    def partial_stages(self) -> list[int]:
        """Stages at which some but not all test samples of the tasks seen by then were counted."""
        if self.evaluated is None or self.sizes is None:
            return []
        missing = (self.evaluated < self.sizes.to(self.evaluated)).tril().any(dim=1)
        return [int(stage) for stage in (missing & self.evaluated.any(dim=1)).nonzero().flatten()]

    def to_dict(self) -> dict[str, Any]:
        """All fields, with the format's version, the partial stages and the definitions of the metrics."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        used = {name.rpartition("/")[2] for name in self.metrics}
        definitions = {name: text for name, text in self.definitions.items() if name in used}
        return {
            "format_version": FORMAT_VERSION,
            **values,
            "partial_stages": self.partial_stages,
            "definitions": definitions,
        }

    def write(self, directory: str | os.PathLike[str], *, keep_previous: bool = True, pictures: bool = True) -> Path:
        """Write the report, its matrices as CSV and its figures; call it on one process.

        ``continual_report.json``; ``accuracy_matrix.csv``, ``accuracy_matrix.png`` and ``accuracy_curves.png`` of the
        headline matrix; ``accuracy_matrix_task_il.csv`` (or ``_class_il``) of the other one when there are two;
        ``confusion_matrix.csv`` and ``.png`` and ``class_accuracy.csv`` where answers were counted by class. The
        JSON is strict (NaN is null) and complete: :func:`read` gives the report back. With an anytime section also
        ``anytime_curve.csv`` and ``anytime_curve.png``; with a ``PlasticityMeter`` in the run ``plasticity.png``, with
        ``ItemCurves`` ``item_curves.png``.

        Args:
            directory: Made if missing.
            keep_previous: Rename the files of an earlier report to ``continual_report-1.json`` and so on, a higher
                number being newer, so that the plain name is always the newest. False replaces them, for a report
                that grows during a run.
            pictures: Draw the figures, too.

        Returns:
            The path of the JSON.
        """
        texts = {"accuracy_matrix.csv": matrix_csv(self.matrix), FILE_NAME: to_json(self.to_dict())}
        for name, other in (("class_il", self.class_il), ("task_il", self.task_il)):
            if other is not None and name != self.matrix_name:
                texts[f"accuracy_matrix_{name}.csv"] = matrix_csv(other)
        means = accuracy_per_stage(self.matrix, sizes=self.has_data)
        figures: dict[str, Callable[[], tuple[Any, Any]]] = {
            "accuracy_matrix.png": partial(plot_accuracy_matrix, self.matrix, title=self.title, unit=self.unit),
            "accuracy_curves.png": partial(
                plot_accuracy_curves, self.matrix, seen_average=means, title=self.title, unit=self.unit
            ),
        }
        if self.confusion is not None:
            texts["confusion_matrix.csv"] = confusion_csv(self.confusion, self.class_names)
            texts["class_accuracy.csv"] = class_accuracy_csv(self.confusion, self.class_names)
            figures["confusion_matrix.png"] = partial(plot_confusion, self.confusion, self.class_names)
        if self.anytime is not None:
            texts["anytime_curve.csv"] = curve_csv(self.anytime)
            figures["anytime_curve.png"] = partial(plot_section, self.anytime)
        figures |= {picture.file: picture.draw for picture in fact_pictures(self.facts, self.class_names)}
        writers = {name: partial(_save_figure, draw=draw) for name, draw in figures.items() if pictures}
        writers |= {name: partial(_write_text, text=texts[name]) for name in sorted(texts)}  # the JSON comes last
        write_files(Path(directory), writers, FAMILY, keep_previous)
        return Path(directory) / FILE_NAME


def report_files(directory: Path) -> list[Path]:
    """The files of the report in a folder."""
    return [file for name in FAMILY if (file := directory / name).is_file()]


def read(path: str | os.PathLike[str]) -> ContinualReport:
    """The report that :meth:`ContinualReport.write` wrote.

    Args:
        path: The JSON file, or the folder it is in.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not a report, or one of a newer format.
    """
    file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply to be a report; give what `write` made.") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise ValueError(f"{file} has no `format_version`, so it is not a continual report; give what `write` made.")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{file} has format {version} but this lightning_cl reads up to {FORMAT_VERSION}; update lightning_cl."
        )
    known = {item.name for item in dataclasses.fields(ContinualReport)}
    values = {name: value for name, value in content.items() if name in known}
    for name in (*_MATRICES, *_ROWS):
        try:
            values[name] = _tensor(values.get(name), counts=name in ("sizes", "evaluated", "confusion"))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"the field `{name}` holds no table of numbers ({error})") from error
        wanted = 2 if name in _MATRICES else 1
        if values[name] is not None and values[name].ndim != wanted:
            raise ValueError(f"the field `{name}` has {values[name].ndim} dimension(s) of numbers, but needs {wanted}")
    check_fields(ContinualReport, values)
    return ContinualReport(**values)


def _tensor(value: Any, counts: bool) -> Tensor | None:
    """Numbers and null (NaN) as a float64 tensor, counts as int64."""
    kind = np.int64 if counts else np.float64
    return None if value is None else torch.from_numpy(np.array(value, dtype=kind))


def _save_figure(path: Path, draw: Callable[[], tuple[Any, Any]]) -> None:
    draw()[0].savefig(path)
