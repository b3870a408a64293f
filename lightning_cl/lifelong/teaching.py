"""One call of ``learn``, from the data to the new version of the model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.extended import match_classes
from lightning_cl.datamodules.sources.wrapped import DataModuleSource
from lightning_cl.lifelong.call import Call
from lightning_cl.lifelong.configuration import Configuration
from lightning_cl.lifelong.lesson import Lesson, last_checkpoint
from lightning_cl.lifelong.lesson_source import LessonSource, NamedSource
from lightning_cl.lifelong.lineage import data_hash, data_of_lesson, history, new_record, past_tasks, repeated_images
from lightning_cl.lifelong.model_folder import ModelFolder
from lightning_cl.lifelong.operations import frozen_names, info_of
from lightning_cl.lifelong.wandb_runs import log_lineage
from lightning_cl.namespace import LightningDataModule, Logger


@dataclass
class Taught:
    """What a call has learned.

    Attributes:
        version: Number of the version that it made.
        classes: Names of the classes in the data.
        new_classes: Those of them that the model did not know.
        images: Training images.
        held_out: Evaluation images of the data.
        accuracy: Of all evaluation images that are there, in [0, 1]; ``None``: there are none.
        before: The same of the tasks before this call, whose images are all there; ``None``: there are none.
        before_then: What it was of those when each of them was learned.
        notes: What a reader must know.
    """

    version: int
    classes: list[str]
    new_classes: list[str]
    images: int
    held_out: int
    accuracy: float | None
    before: float | None
    before_then: float | None
    notes: list[str] = field(default_factory=list)


def teach(
    folder: ModelFolder,
    configuration: Configuration,
    start: dict[str, Any] | None,
    call: Call,
    data: Any,
    loggers: Sequence[Logger],
) -> Taught:
    """Learn ``data`` and add a version; see :meth:`LearnedModel.learn`.

    Args:
        folder: Of the model.
        configuration: Of the model.
        start: The checkpoint of the version that learns; ``None``: this is the first call.
        call: What is asked for.
        data: What the user gave.
        loggers: Of the Trainer.
    """
    known = () if start is None else info_of(start).class_names
    source = _source(data, configuration, known, call)
    source.prepare()
    source.setup()
    if isinstance(source, NamedSource):
        call.data = f"{call.data} {source.digest()[:12]}"
    ids, names = match_classes(known, source.class_names, "by_name")
    content = data_of_lesson(source, ids, call.data)
    before = history(folder, call.parent)
    notes = repeated_images(before, content, names)
    past, planned = None, list[int]()
    if start is not None and call.parent is not None:
        past, gone = past_tasks(before, info_of(start), configuration.preprocessing)
        notes, planned = notes + gone, start["ContinualDataModule"]["planned"]
    lesson = Lesson(configuration, source, past, planned, call.epochs or configuration.epochs, loggers)
    call.begin(folder)
    module = lesson.run(folder.unfinished, start)
    facts = _facts(lesson, source, known)
    described = {"data": call.data, "hash": data_hash(content, source.digest()), "notes": notes, **facts}
    record = new_record("learn", call.parent, lesson.stream.class_names, **described)
    checkpoint = last_checkpoint(folder.unfinished)
    number = folder.add(checkpoint, record, content, configuration.to_dict(), frozen_names(module))
    assert lesson.report is not None
    lesson.report.notes += notes
    lesson.report.write(folder.report, keep_previous=False)
    log_lineage(loggers, folder, number)
    return Taught(number, notes=notes, **facts)


def _source(data: Any, configuration: Configuration, known: Sequence[str], call: Call) -> NamedSource | LessonSource:
    if isinstance(data, LightningDataModule):
        data = DataModuleSource(data)
    if isinstance(data, Source):
        return NamedSource(data, known, call.rename)
    held_out = configuration.test_fraction if call.test_fraction is None else call.test_fraction
    return LessonSource(data, configuration.preprocessing, configuration.augment, held_out, known, call.rename)


def _facts(lesson: Lesson, source: Source, known: Sequence[str]) -> dict[str, Any]:
    now, count, then = lesson.accuracies()
    compared = [t for t in range(len(now) - 1) if count[t] and then[t] is not None]
    of_old = sum(count[t] for t in compared)
    return {
        "classes": list(source.class_names),
        "new_classes": [name for name in source.class_names if name not in known],
        "images": len(source.train_labels),
        "held_out": len(source.test_labels),
        "accuracy": sum(now) / sum(count) if sum(count) else None,
        "before": sum(now[t] for t in compared) / of_old if of_old else None,
        "before_then": sum(then[t] or 0 for t in compared) / of_old if of_old else None,
    }
