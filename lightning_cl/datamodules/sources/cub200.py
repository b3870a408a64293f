"""CUB-200-2011: photographs of 200 bird species."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lightning_cl.datamodules.sources.image_folder import ImageFolder, unpacked_archive
from lightning_cl.datamodules.sources.images import Augment

_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def read_table(path: Path) -> dict[int, str]:
    """Lines of ``<id> <text>`` as a dictionary.

    Raises:
        ValueError: If a line has no number in front; it is named.
    """
    table = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            key, _, text = line.strip().partition(" ")
            if not key.isdecimal() or not text:
                raise ValueError(f"line {number} of {str(path)!r} is {line!r}; expected a number, a space and a text.")
            table[int(key)] = text
    return table


def species(folder: str) -> str:
    """Readable name of a class folder: ``"001.Black_footed_Albatross"`` is ``"Black footed Albatross"``."""
    return folder.partition(".")[2].replace("_", " ").strip() or folder


class CUB200(ImageFolder):
    """CUB-200-2011 (Wah et al., 2011): 200 bird species, 5,994 / 5,794 colour images, with the official split.

    The layout is that of the archive: ``images/<number>.<species>/``, ``images.txt``, ``image_class_labels.txt``,
    ``train_test_split.txt`` and ``classes.txt``. Class ids follow the folder numbers, from 0; class names are the
    species without number and underscores. Few-shot papers use this order and the index lists of CEC.

    Args:
        root: The folder that holds ``CUB_200_2011``, or that folder itself.
        image_size: Height and width in pixels of the transformed images.
        normalize: Use ImageNet's mean and standard deviation; ``False`` leaves pixels in [0, 1].
        augment: See :class:`ImageFolder`.

    Raises:
        FileNotFoundError: In :meth:`setup`, if the folder or a part of it is missing; it says where to get it.
        ValueError: In :meth:`setup`, if a text file is of another kind or they do not fit together.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        image_size: int = 224,
        normalize: bool = True,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(root, image_size=image_size, normalize=normalize, augment=augment)

    def _open(self) -> None:
        download = "download https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz (1.2 GB)"
        needed = (*_TABLES, "images")
        folder = unpacked_archive(self.root, "CUB_200_2011", needed, "CUB-200-2011", download, "images")
        images, labels, split, classes = (read_table(folder / name) for name in _TABLES)
        if not set(images) == set(labels) == set(split):
            raise ValueError(
                f"the tables in {str(folder)!r} list {len(images)} images, {len(labels)} labels and {len(split)} "
                "entries of the split; unpack the whole archive again."
            )
        absent = sorted({name.rpartition("/")[0] for name in images.values()} - _folders(folder / "images"))
        if absent:
            raise FileNotFoundError(
                f"{len(absent)} class folders are missing in {str(folder / 'images')!r}, such as {absent[0]!r}; unpack "
                "the whole archive again."
            )
        ids = {number: at for at, number in enumerate(sorted(classes))}
        self._folders = {"train": folder / "images", "test": folder / "images"}
        parts: list[tuple[list[str], list[int]]] = []
        for wanted in ("1", "0"):
            rows = sorted((ids[int(labels[i])], images[i]) for i in images if split[i] == wanted)
            parts.append(([name for _, name in rows], [label for label, _ in rows]))
        self._publish([species(classes[number]) for number in sorted(classes)], parts[0], parts[1])


def _folders(folder: Path) -> set[str]:
    entries: Sequence[Path] = list(folder.iterdir())
    return {entry.name for entry in entries if entry.is_dir()}
