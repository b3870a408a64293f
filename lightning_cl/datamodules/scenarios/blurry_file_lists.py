"""Blurry streams that were published as lists of files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario, warn
from lightning_cl.datamodules.scenarios.table import TableScenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.file_lists import below
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.datamodules.task import Order

#: Name of a file and of its class.
Entry = tuple[str, str]


def list_paths(lists: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """One path per task; of a pattern with ``{task}`` those that exist, from task 0 on.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If there is no list, or one path without ``{task}``.
    """
    if isinstance(lists, (str, os.PathLike)):
        pattern, paths = os.fspath(lists), list[Path]()
        if "{task}" not in pattern:
            raise ValueError(
                f"`lists` is {pattern!r}; give one path per task, or a pattern with {{task}} for the number, as in "
                "'cifar100_split5_n50_m10_rand1_task{task}.json'."
            )
        while (path := Path(pattern.replace("{task}", str(len(paths))))).is_file():
            paths.append(path)
        if not paths:
            raise FileNotFoundError(f"there is no file {str(path)!r}; expected the list of task 0 there.")
        return paths
    paths = [Path(path) for path in lists]
    if not paths:
        raise ValueError("`lists` is empty; give one path per task.")
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"the lists {missing} do not exist; give the paths of the lists that were published.")
    return paths


def read_json_list(path: Path) -> list[Entry]:
    """File and class names of one task, in order of arrival.

    Raises:
        ValueError: If the file is not a JSON list of objects with ``file_name`` and ``klass``; the first wrong entry
            is named.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON file: {error}.") from error
    expected = 'expected a list of objects as {"klass": "tiger", "file_name": "train/tiger/0459.png", "label": 51}'
    if not isinstance(content, list) or not content:
        raise ValueError(f"{str(path)!r} holds {'no entry' if content == [] else type(content).__name__}; {expected}.")
    for number, entry in enumerate(content):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("file_name", "klass")):
            raise ValueError(f"entry {number} of {str(path)!r} is {entry!r}; {expected}.")
    return [(entry["file_name"], entry["klass"]) for entry in content]


def listed_positions(tasks: Sequence[Sequence[Entry]], names: Sequence[str], labels: Tensor) -> list[Tensor]:
    """Positions of each task's files among the ``names`` of all images.

    Args:
        tasks: File and class names of each task, from :func:`read_json_list`; a file name may begin with folders up to
            ``train``.
        names: ``<class>/<file>`` of every training image.
        labels: ``(N,)`` their labels.

    Raises:
        ValueError: If a file is not among the names or is listed twice, or if classes do not match labels one to one.
    """
    position = {name: i for i, name in enumerate(names)}
    wanted = [below([file for file, _ in entries], "train") for entries in tasks]
    unknown = [name for files in wanted for name in files if name not in position]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {sum(map(len, wanted))} listed files are not in the source, such as {unknown[0]!r}; "
            f"its training images have names such as {names[0]!r}. Use the lists of this data set."
        )
    found = [torch.tensor([position[name] for name in files], dtype=torch.int64) for files in wanted]
    every = torch.cat(found)
    repeated = (torch.bincount(every) > 1).nonzero().flatten().tolist()
    if repeated:
        raise ValueError(
            f"{len(repeated)} file(s) are listed twice, such as {names[repeated[0]]!r}; use the lists of one stream, "
            "published together."
        )
    classes = [klass for entries in tasks for _, klass in entries]
    label_of: dict[str, int] = {}
    class_of: dict[int, str] = {}
    for klass, label in zip(classes, labels[every].tolist(), strict=True):
        if label_of.setdefault(klass, label) != label or class_of.setdefault(label, klass) != klass:
            raise ValueError(
                f"the listed class {klass!r} and the source's label {label} do not belong together: elsewhere they are "
                f"{label_of[klass]} and {class_of.get(label)!r}. Use the lists of this data set."
            )
    return found


class BlurryFileLists(Scenario):
    """Online stream that was published as JSON lists of files, as those of i-Blurry (Koh et al., arXiv:2110.10031).

    Each list has one task's samples in order of arrival: ``{"klass": "tiger", "file_name": "train/tiger/0459.png",
    "label": 51}``. Their labels count classes by arrival and are not used: class ids stay those of the source, which
    has to name its images as the lists do (``CIFAR10``, ``CIFAR100``, ``TinyImageNet`` and image folders do). Images
    that no list has are left out, with a warning.

    Args:
        lists: One path per task in order, or one path with ``{task}`` where its number stands, from 0:
            ``"collections/cifar100/cifar100_split5_n50_m10_rand1_task{task}.json"``.

    Raises:
        FileNotFoundError: From :meth:`for_source`, if a list does not exist.
        ValueError: From :meth:`for_source`, if a list cannot be read or does not fit the source.
    """

    order: Order = "stream"

    def __init__(self, lists: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        self.lists = lists

    def for_source(self, source: Source) -> Scenario:
        """The listed stream over the source's images."""
        names = source.file_names("train")
        if names is None:
            raise ValueError(
                f"{type(source).__name__} does not name its images, so file lists cannot find them; use `ImageFolder`, "
                "`TinyImageNet`, `CIFAR10` or `CIFAR100`, or give your source a method `file_names`."
            )
        labels = source.train_labels
        tasks = listed_positions([read_json_list(path) for path in list_paths(self.lists)], names, labels)
        absent = len(labels) - sum(map(len, tasks))
        if absent:
            warn(f"the file lists leave out {absent} of the source's {len(labels)} training images.")
        return TableScenario(StreamTable.from_tasks(tasks, labels), "stream")

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Not known from labels alone; see :meth:`for_source`."""
        raise ValueError(
            "BlurryFileLists needs the names of the source's files, not only labels; call `for_source(source)` first, "
            "or let ContinualDataModule do it."
        )
