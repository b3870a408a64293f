"""The data of one call: a folder of images (or any other source), with the model's preprocessing and class names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.derived import DerivedSource
from lightning_cl.datamodules.sources.image_files import Labelled, class_folders, split_folder
from lightning_cl.datamodules.sources.image_folder import ImageFolder
from lightning_cl.datamodules.sources.images import Augment
from lightning_cl.datamodules.sources.labels import default_names
from lightning_cl.lifelong.class_names import few, renamed
from lightning_cl.lifelong.preprocessing import Preprocessing

#: Bytes of a file's SHA-256 that are kept to recognise it.
HASH_BYTES = 8


class LessonSource(ImageFolder):
    """Images in ``root/train/<class>/`` and ``root/test/<class>/`` (or ``val``), or in ``root/<class>/``.

    Args:
        root: The folder.
        preprocessing: Of the model.
        augment: Of training images.
        test_fraction: Share of each class that is held out where the folder has no split of its own; 0: nothing is.
        known: Names of the classes that the model has.
        rename: New name by name of a class folder.

    Raises:
        ValueError: In :meth:`setup`, if names are not clear, or the model would know one class only.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        preprocessing: Preprocessing,
        augment: Augment = "none",
        test_fraction: float = 0.2,
        known: Sequence[str] = (),
        rename: Mapping[str, str] | None = None,
    ) -> None:
        size, channels = preprocessing.image_size, preprocessing.channels
        super().__init__(root, None, 0, size, True, augment, None if channels == 3 else channels)
        self.preprocessing, self.fraction = preprocessing, test_fraction
        self.known, self.rename = tuple(known), dict(rename or {})

    def _open(self) -> None:
        if self.root.is_dir() and split_folder(self.root, "train") is None:
            self.test_fraction = self.fraction
            if not self.fraction:
                self.needs_test, classes = False, class_folders(self.root)
                self._folders = {"train": self.root, "test": self.root}
                self._publish(classes, self._files(self.root, classes), ([], []))
                return
        super()._open()

    def _publish(self, classes: list[str], train: Labelled, test: Labelled) -> None:
        if self.test_fraction and not test[0]:
            raise ValueError(
                f"no image of {self.root} can be held out, since each class has one only; add images, or say with "
                "`test_fraction=0` (`--test-fraction 0`) that nothing is measured of them."
            )
        super()._publish(classes, train, test)
        self.class_names = tuple(renamed(self.class_names, self.rename, self.known, str(self.root)))
        check_two_classes(self.known, self.class_names, str(self.root))

    def _transform(self, augment: Augment) -> Any:
        return self.preprocessing.transform(augment)

    def path(self, split: Split, index: int) -> str:
        """The file of an image."""
        return os.path.join(self._folders[split], self._paths[split][index])


class NamedSource(DerivedSource):
    """Another source whose classes are matched by name.

    Args:
        source: As the user gave it; its transforms must make what the model takes.
        known: Names of the classes that the model has.
        rename: New name by name in the source.

    Raises:
        ValueError: In :meth:`setup`, if it names no classes and the model knows such numbers already; if names are not
            clear, or the model would know one class only.
    """

    def __init__(self, source: Source, known: Sequence[str] = (), rename: Mapping[str, str] | None = None) -> None:
        self.source, self.known, self.rename = source, tuple(known), dict(rename or {})
        self.collate_fn, self.batch_hooks = source.collate_fn, source.batch_hooks

    def _open(self) -> None:
        source, name = self.source, type(self.source).__name__
        source.setup()
        numbers = source.class_names == default_names(source.train_labels, source.test_labels)
        if numbers and not self.rename and set(source.class_names) & set(self.known):
            raise ValueError(
                f"{name} names no classes, and the model knows classes called {few(self.known, 3)} already, which may "
                "be others; give `class_names` to the source."
            )
        names = renamed(source.class_names, self.rename, self.known, name)
        check_two_classes(self.known, names, name)
        self.image_size = source.image_size
        self._describe(source.train_labels, source.test_labels, names)

    def item(self, split: Split, index: int) -> Any:
        """As the source has it."""
        return self.source.item(split, index)

    def digest(self) -> str:
        """The source's own, and the names."""
        return hashlib.sha256(f"{self.source.digest()} {self.class_names}".encode()).hexdigest()


def check_two_classes(known: Sequence[str], given: Sequence[str], where: str) -> None:
    """Refuse data after which there is nothing to tell apart.

    Raises:
        ValueError: If the model and the data know one class together.
    """
    if len({*known, *given}) < 2:
        raise ValueError(
            f"{where} has one class, {few(given)}, and the model knows no other, so there is nothing to tell apart; "
            "give a folder with at least two class folders first."
        )


def file_hashes(paths: Sequence[str]) -> list[str]:
    """The start of the SHA-256 of each file, in hexadecimal."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(_file_hash, paths))


def _file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[: 2 * HASH_BYTES]


def class_counts(labels: Tensor) -> dict[int, int]:
    """Number of samples of each class that has some, by class id."""
    return {c: n for c, n in enumerate(labels.bincount().tolist()) if n}
