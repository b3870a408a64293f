"""Image files below a folder: which there are, which class they belong to, and which can be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lightning_cl.datamodules.sources.pictures import is_readable

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
#: Relative paths and their labels.
Labelled = tuple[list[str], list[int]]


def _belongs(name: str) -> bool:
    # Hidden ones: .ipynb_checkpoints with copies of pictures, and ._x.jpg, which is what macOS knows about x.jpg.
    return not name.startswith(".") and name != "__MACOSX"


def class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders, sorted; hidden ones and ``__MACOSX`` are left out."""
    return sorted(entry.name for entry in folder.iterdir() if _belongs(entry.name) and entry.is_dir())


def split_folder(root: Path, *names: str) -> str | None:
    """The first of the names that is a sub-folder, in whatever letter case; ``None`` if none is."""
    found = {name.lower(): name for name in sorted(class_folders(root), reverse=True)}  # lower case wins
    return next((found[name] for name in names if name in found), None)


def image_files(folder: Path, classes: Sequence[str]) -> Labelled:
    """Image files under the classes' folders as paths relative to ``folder``, sorted, and their labels.

    Hidden files and folders and ``__MACOSX`` are left out; links to folders are followed.
    """
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(_below(os.path.join(folder, name), name, ()))
        paths += found
        labels += [label] * len(found)
    return paths, labels


def _below(folder: str, name: str, above: tuple[str, ...]) -> Iterator[str]:
    """Image files in a folder and its sub-folders; ``above`` are the folders that it is in, so that no link circles."""
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _belongs(entry.name):
                continue
            if entry.is_dir():
                yield from _below(entry.path, f"{name}/{entry.name}", (*above, real))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                yield f"{name}/{entry.name}"


def readable_files(folder: Path, files: Labelled, channels: int | None = None) -> Labelled:
    """The files whose pictures can be read; a warning names the others. It decodes all of them.

    Args:
        folder: Where the paths start.
        files: Relative paths and labels.
        channels: See :func:`lightning_cl.datamodules.sources.pictures.read_picture`.
    """
    paths, labels = files
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        good = list(pool.map(lambda path: is_readable(os.path.join(folder, path), channels), paths))
    broken = [path for path, fine in zip(paths, good, strict=True) if not fine]
    if broken:
        warnings.warn(
            f"{len(broken)} of {len(paths)} pictures in {str(folder)!r} cannot be read and are left out: "
            f"{', '.join(map(repr, broken[:10]))}{', ...' if len(broken) > 10 else ''}.",
            UserWarning,
            stacklevel=2,
        )
    kept = [row for row, fine in enumerate(good) if fine]
    return [paths[row] for row in kept], [labels[row] for row in kept]


def printable(name: str) -> str:
    """A file name as text; bytes that are no UTF-8 are written in hexadecimal."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
