"""What a model was made of, call by call: the data of each version, what is left of it, and which images come twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import torch

import lightning_cl
from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.past_tasks import PastTasks
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.lifelong.lesson_source import LessonSource, class_counts, file_hashes
from lightning_cl.lifelong.model_folder import ModelFolder
from lightning_cl.lifelong.preprocessing import Preprocessing

_SPLITS: tuple[Split, ...] = ("train", "test")
#: Samples of a class of which only is known that there were some.
_SOME = 2


def lineage(folder: ModelFolder, number: int | None = None) -> list[dict[str, Any]]:
    """The records of a version and of all that it was made from, oldest first."""
    records = list[dict[str, Any]]()
    step: int | None = folder.version(number)
    while step is not None:
        records.insert(0, folder.record(step))
        step = records[0]["parent"]
    return records


def history(folder: ModelFolder, number: int | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The record and the images of a version and of all that it was made from, oldest first; ``None``: of nothing."""
    records = [] if number is None else lineage(folder, number)
    return [(record, folder.data(record["version"])) for record in records]


def new_record(action: str, parent: int | None, class_names: Sequence[str], **facts: Any) -> dict[str, Any]:
    """What is known of a version.

    Args:
        action: What was done: ``"learn"``, ``"run"``, ``"rename"``, ``"merge"`` or ``"forget"``.
        parent: The version that it was made from.
        class_names: Of all classes then, by column.
        facts: Plain values.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    names = list(class_names)
    versions = {"lightning_cl": lightning_cl.__version__, "torch": torch.__version__}
    return {"action": action, "parent": parent, "date": now, "class_names": names, "versions": versions, **facts}


def data_of_lesson(source: Any, class_ids: Sequence[int], where: str) -> dict[str, Any]:
    """The images of a call: counts, evaluation files, and hashes by which they are known again.

    Args:
        source: After its ``setup``.
        class_ids: The model's column of each of its labels.
        where: The data, as the user named it.
    """
    ids = torch.tensor(class_ids)
    counts = {str(c): n for c, n in class_counts(ids[source.train_labels]).items()}
    task: dict[str, Any] = {"counts": counts, "files": [], "labels": [], "root": None, "held_out": 0}
    data: dict[str, Any] = {"where": where, "tasks": [task], "hashes": {}}
    task["held_out"] = len(source.test_labels)
    if isinstance(source, LessonSource):
        train, test = ([source.path(s, i) for i in range(len(source.file_names(s)))] for s in _SPLITS)
        root = os.path.abspath(source.root)
        task["root"] = root
        task["files"] = [os.path.relpath(os.path.abspath(path), root) for path in test]
        task["labels"] = ids[source.test_labels].tolist()
        hashes = file_hashes([*train, *test])
        labels = ids[torch.cat([source.train_labels, source.test_labels])].tolist()
        data["hashes"] = {"values": hashes, "labels": labels}
    return data


def data_of_run(info: StreamInfo, where: str) -> dict[str, Any]:
    """What is known of a run's data: which classes its tasks held."""
    tasks: list[dict[str, Any]] = [
        {"counts": {str(c): _SOME for c in held}, "files": [], "labels": [], "root": None, "held_out": 0}
        for held in info.classes_per_task
    ]
    return {"where": where, "tasks": tasks, "hashes": {}}


def data_hash(data: Mapping[str, Any], fingerprint: str) -> str:
    """SHA-256 of the images' hashes, or of the stream where the images are no files."""
    values = data["hashes"].get("values")
    return hashlib.sha256(" ".join(values).encode()).hexdigest() if values else fingerprint


def past_tasks(
    past: Sequence[tuple[dict[str, Any], dict[str, Any]]], info: StreamInfo, preprocessing: Preprocessing
) -> tuple[PastTasks, list[str]]:
    """What is left of the tasks behind a version; and which evaluation data are gone, in words.

    Args:
        past: The :func:`history` of the version.
        info: Of its stream.
        preprocessing: Of the model.
    """
    tasks, notes = list[dict[str, Any]](), list[str]()
    for record, data in past:
        relabel = {int(old): new for old, new in record.get("relabel", {}).items()}
        tasks = [_relabelled(task, relabel) for task in tasks] if relabel else tasks
        tasks += data["tasks"]
    files, labels, task_of = list[str](), list[int](), list[int]()
    for index, task in enumerate(tasks):
        paths = [os.path.join(task["root"] or "", file) for file in task["files"]]
        there = [(path, label) for path, label in zip(paths, task["labels"], strict=True) if os.path.isfile(path)]
        if len(there) < task["held_out"]:
            names = ", ".join(info.class_names[c] for c in info.classes_per_task[index][:5])
            gone = task["held_out"] - len(there)
            notes.append(
                f"{gone} of {task['held_out']} evaluation images of task {index} ({names}) are not there any more, so "
                "what was forgotten of it is not " + ("seen" if not there else "fully seen")
            )
        files += [path for path, _ in there]
        labels += [label for _, label in there]
        task_of += [index] * len(there)
    counts = [{int(c): n for c, n in task["counts"].items()} for task in tasks]
    held = torch.tensor(labels, dtype=torch.long), torch.tensor(task_of, dtype=torch.long)
    return PastTasks(info, counts, files, *held, preprocessing.read, preprocessing.transform()), notes


def _relabelled(task: dict[str, Any], relabel: Mapping[int, int | None]) -> dict[str, Any]:
    """Evaluation images under their new classes; those of forgotten ones (``None``) are left out."""
    pairs = [(file, relabel.get(label, label)) for file, label in zip(task["files"], task["labels"], strict=True)]
    kept = [(file, label) for file, label in pairs if label is not None]
    lost = len(pairs) - len(kept)
    return {
        **task,
        "files": [file for file, _ in kept],
        "labels": [label for _, label in kept],
        "held_out": task["held_out"] - lost,
    }


def repeated_images(
    past: Sequence[tuple[dict[str, Any], dict[str, Any]]], data: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """Images that came in an earlier folder, or twice in this one, in words.

    Args:
        past: The :func:`history` of the version that learns.
        data: Of the new images.
        names: Of all classes, by column.
    """
    values, labels = (data["hashes"].get(key, ()) for key in ("values", "labels"))
    places: dict[str, list[str]] = {}
    for value, label in zip(values, labels, strict=True):
        places.setdefault(value, []).append(names[label])
    twice = [found for found in places.values() if len(found) > 1]
    torn = sorted({" and ".join(sorted(set(map(repr, found)))) for found in twice if len(set(found)) > 1})
    notes = [f"the same image is in the classes {classes}" for classes in torn[:5]]
    if twice:
        notes.append(f"more than once in this folder: {len(twice)} image(s)")
    for record, known in past:
        earlier = set(known["hashes"].get("values", ()))
        again = len(earlier & set(places))
        if again:
            notes.append(f"learned before, from {record['data']} (version {record['version']}): {again} image(s)")
    return notes
