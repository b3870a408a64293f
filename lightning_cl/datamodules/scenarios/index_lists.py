"""Published lists of training samples, one list per session, as few-shot papers share them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

#: One session: positions in the training split, or names of files.
IndexList = list[int] | list[str]


def read_index_lists(path: str | os.PathLike[str], dataset: str | None = None) -> list[IndexList]:
    """The lists of all sessions, the base session first.

    Args:
        path: A folder with ``session_1.txt``, ``session_2.txt``, ... (one integer or one file name per line), or an
            ``.npz`` with arrays ``session_1``, ``session_2``, ... or ``<dataset>_session_1``, ...
        dataset: Which data set's lists to take; needed for a file or folder that holds several.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it has no lists of that data set, or a session is missing.
    """
    place = Path(path)
    if place.is_dir():
        lists = _of_folder(place / dataset if dataset and (place / dataset).is_dir() else place)
    elif place.is_file():
        lists = _of_archive(place, dataset)
    else:
        raise FileNotFoundError(
            f"there are no index lists in {str(place)!r}; give the folder or `.npz` that holds them (published "
            "ones are in data/index_list of github.com/wangkiw/TEEN), or leave `index_lists` out to draw from the seed."
        )
    gaps = sorted(set(range(1, max(lists, default=0) + 1)) - set(lists))
    if not lists or gaps:
        raise ValueError(
            f"{str(place)!r} has {f'no list of the sessions {gaps}' if lists else 'no session lists'}; expected "
            "session_1 (the base session), session_2, ... without a gap."
        )
    return [lists[number] for number in sorted(lists)]


def _of_folder(folder: Path) -> dict[int, IndexList]:
    found = ((re.fullmatch(r"session_(\d+)\.txt", file.name), file) for file in folder.iterdir())
    return {int(match[1]): _entries(file.read_text(encoding="utf-8").split()) for match, file in found if match}


def _of_archive(path: Path, dataset: str | None) -> dict[int, IndexList]:
    with np.load(path, allow_pickle=False) as archive:
        found = [(re.fullmatch(r"(?:(.+)_)?session_(\d+)", name), name) for name in archive.files]
        matches = [(match[1], int(match[2]), name) for match, name in found if match]
        known = sorted({owner for owner, _, _ in matches if owner})
        if dataset is None and len(known) > 1:
            raise ValueError(f"{str(path)!r} has the lists of {', '.join(known)}; choose one with `dataset`.")
        if dataset is not None and dataset not in known:
            raise ValueError(
                f"{str(path)!r} has no lists of {dataset!r}; it has those of {', '.join(known) or 'none'}."
            )
        owner = dataset or (known[0] if known else None)
        return {number: _entries(archive[name].tolist()) for held, number, name in matches if held == owner}


def _entries(values: Sequence[object]) -> IndexList:
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return [int(text) for text in texts] if all(text.isdecimal() for text in texts) else texts


def listed_samples(lists: Sequence[IndexList], names: Sequence[str] | None, labels: Tensor) -> list[Tensor]:
    """Positions of each session's samples in the training split.

    Args:
        lists: From :func:`read_index_lists`.
        names: Name of every training image, needed for lists of names. The last two parts of a path count: class
            folder and file.
        labels: ``(N,)`` labels of the training split.

    Raises:
        ValueError: If an entry is not in the training split, occurs twice, or a class is in two sessions.
    """
    places = None if names is None else {_tail(name): at for at, name in enumerate(names)}
    found = [_positions(entries, places, len(labels)) for entries in lists]
    every = torch.cat(found)
    repeated = (torch.bincount(every, minlength=1) > 1).nonzero().flatten().tolist()
    if repeated:
        raise ValueError(f"{len(repeated)} sample(s) are listed twice, such as {repeated[0]}; use lists of one split.")
    seen: dict[int, int] = {}
    for session, index in enumerate(found):
        for label in labels[index].unique().tolist():
            if seen.setdefault(label, session) != session:
                raise ValueError(
                    f"class {label} is in the lists of the sessions {seen[label] + 1} and {session + 1}, so they are "
                    f"not of this data set ({len(labels)} training samples); integers count the original split."
                )
    return found


def _positions(entries: IndexList, places: dict[str, int] | None, count: int) -> Tensor:
    if entries and isinstance(entries[0], int):
        index = torch.tensor(entries, dtype=torch.int64)
        if int(index.max()) >= count:
            raise ValueError(
                f"the lists name sample {int(index.max())} but the training split has {count}; they count the original "
                "training split, so a part of the data set does not do."
            )
        return index
    if places is None:
        raise ValueError("the lists name files but the source does not name its images; use a source of folders.")
    unknown = [str(name) for name in entries if _tail(str(name)) not in places]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(entries)} listed files are not in the source, such as {unknown[0]!r}; its images "
            f"have names such as {next(iter(places), '')!r}."
        )
    return torch.tensor([places[_tail(str(name))] for name in entries], dtype=torch.int64)


def _tail(name: str) -> str:
    return "/".join(PurePosixPath(name.replace("\\", "/")).parts[-2:])
