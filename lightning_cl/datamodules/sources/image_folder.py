"""A folder of image files, one sub-folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.image_files import (
    SUFFIXES,
    Labelled,
    class_folders,
    image_files,
    printable,
    readable_files,
    split_folder,
)
from lightning_cl.datamodules.sources.images import Augment, ImageSource, split_off_test
from lightning_cl.datamodules.sources.pictures import read_picture


def unpacked_archive(root: Path, name: str, parts: Sequence[str], title: str, download: str, example: str) -> Path:
    """The folder of an archive's content: ``root / name``, or ``root`` itself.

    Args:
        root: Where it should have been unpacked.
        name: The archive's top folder.
        parts: Files and folders that are looked for in it.
        title: Of the data set, for the message.
        download: What to do to get it, for the message.
        example: A folder below ``name`` that should then be there.

    Raises:
        FileNotFoundError: If parts are missing; it names them and says where to get them.
    """
    folder = root / name if (root / name).is_dir() else root
    missing = [part for part in parts if not (folder / part).exists()]
    if missing:
        raise FileNotFoundError(
            f"{title} is not in `root`={str(root)!r}, or not all of it: {missing} missing; {download} and unpack it "
            f"there, so that there is a folder {str(root / name / example)!r}."
        )
    return folder


class ImageFolder(ImageSource):
    """Image files in ``root/train/<class>/`` and ``root/test/<class>/`` (or ``val``), or in ``root/<class>/``.

    Class ids follow the sorted folder names; ``Train``, ``Test`` and ``Val`` may be in any letter case. Links are
    followed; hidden files and folders (``._x.jpg``, ``.ipynb_checkpoints``) and ``__MACOSX`` are left out. Images are
    RGB as a viewer shows them: upright by their EXIF data, 16-bit and floating point levels scaled, white under
    transparent pixels.

    Args:
        root: The folder.
        test_fraction: For ``root/<class>/``: share of each class that makes the test split, in (0, 1). Leave it out
            where ``root/train`` exists. A single image is for training.
        split_seed: Decides which files those are; it does not depend on the seed of the stream.
        image_size: Height and width in pixels of the transformed images.
        normalize: Use ImageNet's mean and standard deviation. ``False`` leaves pixels in [0, 1], which the published
            prompt methods feed their ViT.
        augment: ``"crop"`` (default): a random part of 8 % to 100 % of the area, and a flip; ``"flip"``: the middle,
            and a flip; ``"none"``: the middle, as in evaluation.
        channels: Number of channels of the files, for other than RGB; ``None``: RGB. Items are then tensors
            ``(channels, H, W)``, not normalised: uint8, or float32 (16-bit levels in [0, 1]). TIFF files may have any
            number of channels (with the package tifffile), other files 1 to 4.
        on_error: What to do about a file that cannot be read: ``"raise"`` an error that names it when it is its turn,
            or ``"skip"``: decode all files in :meth:`setup`, warn, and leave those out.

    Raises:
        FileNotFoundError: In :meth:`setup`, if a folder is missing or holds no class folders.
        ValueError: For an unknown ``on_error``; in :meth:`setup`, if train and test have different class folders, a
            class has no images, or ``test_fraction`` does not fit the layout.
        OSError: In :meth:`item`, if a file cannot be read.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str | os.PathLike[str],
        test_fraction: float | None = None,
        split_seed: int = 0,
        image_size: int = 224,
        normalize: bool = True,
        augment: Augment | None = None,
        channels: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__(image_size, normalize and channels is None, augment)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` is {on_error!r}; expected 'raise' or 'skip'.")
        if channels is not None and channels < 1:
            raise ValueError(f"`channels` is {channels}; give the number of channels of the files, or None for RGB.")
        self.root, self.test_fraction, self.split_seed = Path(root), test_fraction, split_seed
        self.channels, self.on_error = channels, on_error

    def _open(self) -> None:
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"`root`={str(self.root)!r} is not a folder; give one that holds train/<class>/ and test/<class>/, "
                "or <class>/ together with `test_fraction=0.2`."
            )
        train = split_folder(self.root, "train")
        if train is None:
            self._open_single_folder(self.root)
        else:
            self._open_split_folders(train)

    def _open_split_folders(self, train: str) -> None:
        if self.test_fraction is not None:
            raise ValueError(
                f"`test_fraction` is {self.test_fraction}, but {str(self.root)!r} has a `{train}` folder and so brings "
                "its own split; leave `test_fraction` out, or give the folder that holds the classes as `root`."
            )
        test = split_folder(self.root, "test", "val")
        if test is None:
            raise FileNotFoundError(
                f"{str(self.root)!r} has a `{train}` folder but neither `test` nor `val`; add one of them, or give "
                f"`root`={str(self.root / train)!r} with `test_fraction=0.2` to split the training images."
            )
        classes = class_folders(self.root / train)
        only_train = sorted(set(classes) - set(class_folders(self.root / test)))
        only_test = sorted(set(class_folders(self.root / test)) - set(classes))
        if only_train or only_test:
            raise ValueError(
                f"`{train}` and `{test}` in {str(self.root)!r} have different class folders: only in {train} "
                f"{only_train[:10]}, only in {test} {only_test[:10]}; give both the same ones (a folder may be empty "
                f"in {test})."
            )
        self._folders = {"train": self.root / train, "test": self.root / test}
        self._publish(classes, *(self._files(folder, classes) for folder in self._folders.values()))

    def _files(self, folder: Path, classes: list[str]) -> Labelled:
        files = image_files(folder, classes)
        return files if self.on_error == "raise" else readable_files(folder, files, self.channels)

    def _open_single_folder(self, folder: Path) -> None:
        classes = class_folders(folder)
        if self.test_fraction is None:
            raise ValueError(
                f"{str(folder)!r} has no `train` folder, so it brings no split of its own; pass `test_fraction=0.2` "
                "to hold a fifth of every class out for testing."
            )
        paths, labels = self._files(folder, classes)
        train, test = split_off_test(labels, self.test_fraction, self.split_seed, classes)
        self._folders = {"train": folder, "test": folder}
        parts = [([paths[i] for i in rows], [labels[i] for i in rows]) for rows in (train, test)]
        self._publish(classes, parts[0], parts[1])

    def _publish(self, classes: list[str], train: Labelled, test: Labelled) -> None:
        if not classes or not train[0]:
            raise FileNotFoundError(
                f"no images found under {str(self.root)!r} ({len(classes)} class folders); expected one folder per "
                f"class with files that end in {', '.join(sorted(SUFFIXES))}."
            )
        self._paths = {"train": train[0], "test": test[0]}
        self._describe(train[1], test[1], [printable(name) for name in classes])

    def file_names(self, split: Split) -> Sequence[str]:
        """Path of each image below the folder, ``<class>/<file>``."""
        return self._paths[split]

    def digest(self) -> str:
        """As :meth:`Source.digest`, and of the file names below the folder: labels alone do not tell splits apart."""
        digest = hashlib.sha256(super().digest().encode())
        for split in ("train", "test"):
            digest.update(os.fsencode("\0".join([split, *self._paths[split]])))
        return digest.hexdigest()

    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: an RGB PIL image (or with ``channels`` a tensor), and an int."""
        labels = self.train_labels if split == "train" else self.test_labels
        path = os.path.join(self._folders[split], self._paths[split][index])
        return read_picture(path, path, self.channels), int(labels[index])
