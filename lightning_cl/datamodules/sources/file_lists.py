"""Published splits as lists of files: text lines of ``path label``, or YAML with ``data`` and ``targets``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

#: Relative paths and their labels.
FileList = tuple[list[str], list[int]]


def read_file_list(path: Path) -> FileList:
    """Paths as they are listed, and their labels.

    Args:
        path: A text file with a path, white space and an integer in every line, or a ``.yaml`` file with the lists
            ``data`` (paths) and ``targets`` (integers).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else; the first wrong line is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file list {str(path)!r}; give the path of a list that was published.")
    return _from_yaml(path) if path.suffix in (".yaml", ".yml") else _from_text(path)


def _from_text(path: Path) -> FileList:
    names, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise ValueError(
                f"line {number} of {str(path)!r} is {line!r}; expected a path, a space and a class id, as in "
                "'clipart/dog/clipart_091_000001.jpg 90'."
            )
        names.append(name.strip())
        labels.append(int(label))
    return names, labels


def _from_yaml(path: Path) -> FileList:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    with path.open(encoding="utf-8") as file:
        content: Any = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the fast one if built
    names, labels = (content.get(key) if isinstance(content, dict) else None for key in ("data", "targets"))
    if not isinstance(names, list) or not isinstance(labels, list) or len(names) != len(labels):
        raise ValueError(
            f"{str(path)!r} should have the keys `data` (paths) and `targets` (class ids), two lists of equal length."
        )
    return [str(name) for name in names], [int(label) for label in labels]


def below(paths: Sequence[str], folder: str) -> list[str]:
    """Paths from ``folder`` on, whatever stands before it in the list: ``data/images/a/1.jpg`` to ``a/1.jpg``."""
    found = []
    for path in paths:
        parts = PurePosixPath(path.replace("\\", "/")).parts
        found.append(str(PurePosixPath(*parts[parts.index(folder) + 1 :])) if folder in parts else path)
    return found


def names_of_labels(lists: Sequence[FileList]) -> list[str]:
    """Name of each label: the folder that its files are in.

    Raises:
        ValueError: If a label stands for two folders, or labels leave a gap.
    """
    names: dict[int, str] = {}
    for paths, labels in lists:
        for path, label in zip(paths, labels, strict=True):
            name = PurePosixPath(path).parent.name
            if names.setdefault(label, name) != name:
                raise ValueError(
                    f"the class id {label} stands for {names[label]!r} and for {name!r} ({path}); use lists that were "
                    "published together."
                )
    missing = sorted(set(range(len(names))) - set(names))
    if missing:
        raise ValueError(f"the file lists have {len(names)} classes but none with the ids {missing[:10]}.")
    return [names[label] for label in range(len(names))]


def check_listed(root: Path, train: Sequence[str], test: Sequence[str]) -> None:
    """Check that the folders of the listed files exist and that no file is in both splits.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a file is listed for training and for testing.
    """
    both = set(train) & set(test)
    if both:
        raise ValueError(
            f"{len(both)} file(s) are listed for training and for testing, such as {min(both)!r}; use lists that were "
            "published together."
        )
    folders = sorted({str(PurePosixPath(path).parent) for path in (*train, *test)})
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(folders)} folders that the file lists name are not in {str(root)!r}, such as "
            f"{missing[0]!r}; unpack all of the images there."
        )
