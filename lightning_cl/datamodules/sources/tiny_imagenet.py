"""Tiny-ImageNet: 200 ImageNet classes at 64x64."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.image_files import image_files
from lightning_cl.datamodules.sources.image_folder import ImageFolder, unpacked_archive
from lightning_cl.datamodules.sources.images import Augment

ClassOrder = Literal["sorted", "wnids"]


def read_wnids(path: Path) -> list[str]:
    """Class folders that the data set has, in the order of the file."""
    return path.read_text(encoding="utf-8").split()


def read_words(path: Path, wnids: Sequence[str]) -> list[str]:
    """Name of each class: the first of its synonyms, or where two classes share that, all of them.

    Raises:
        ValueError: If a class has no line.
    """
    lines = (line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line)
    words = {wnid.strip(): text.strip() for wnid, text in lines}
    missing = [wnid for wnid in wnids if not words.get(wnid)]
    if missing:
        raise ValueError(f"{str(path)!r} has no words for the classes {missing[:10]}; unpack the archive again.")
    names = [words[wnid].split(",")[0].strip() for wnid in wnids]
    shared = {name for name, count in Counter(names).items() if count > 1}
    return [words[wnid] if name in shared else name for wnid, name in zip(wnids, names, strict=True)]


def read_annotations(path: Path, wnids: Sequence[str]) -> tuple[list[str], list[int]]:
    """File names of the validation images, sorted by class and name, and their labels.

    Raises:
        ValueError: If a line is of another kind or names a class that the data set has not.
    """
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in label_of:
            raise ValueError(
                f"line {number} of {str(path)!r} is {line!r}; expected a file name, a tab and one of the "
                f"{len(wnids)} classes in wnids.txt."
            )
        rows.append((label_of[fields[1]], fields[0]))
    rows.sort()
    return [name for _, name in rows], [label for label, _ in rows]


class TinyImageNet(ImageFolder):
    """Tiny-ImageNet (Stanford CS231n): 200 classes, 100,000 / 10,000 colour images of 64x64.

    The layout is that of the archive: ``train/<wnid>/images/``, ``val/images/`` with ``val_annotations.txt``,
    ``wnids.txt`` and ``words.txt``. The labelled validation images are the test split, since the archive's test images
    have no labels. Names are from ``words.txt``. Images are in the order of the sorted wnids, whatever their ids are,
    as torchvision lists the folder.

    Args:
        root: The folder that holds ``tiny-imagenet-200``, or that folder itself.
        image_size: Height and width in pixels that images are resized to.
        normalize: Subtract the data set's mean and divide by its standard deviation. ``False`` leaves pixels in
            [0, 1], which the published prompt methods feed their ViT.
        augment: ``"crop"`` (default): at 64 pixels a shift by up to 8 and a flip, resized a random crop of 8 % to 100 %
            of the area and a flip; ``"flip"``; ``"none"``.
        class_order: What class ids follow: ``"sorted"`` wnids, or ``"wnids"``: the lines of ``wnids.txt``, as in the
            released code of Si-Blurry (2308.09303). No class has the same id in both.
        std: Standard deviation of each channel; by default that of all pixels. Many published codes, Si-Blurry's among
            them, have (0.2302, 0.2265, 0.2262), the mean deviation within an image.

    Raises:
        FileNotFoundError: In :meth:`setup`, if the folder or a part of it is missing; it says where to get it.
        ValueError: For an unknown ``class_order``; in :meth:`setup`, if a text file is of another kind.
    """

    mean, std = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
    native_size = 64

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        image_size: int = 64,
        normalize: bool = True,
        augment: Augment | None = None,
        class_order: ClassOrder = "sorted",
        std: tuple[float, float, float] = (0.2770, 0.2691, 0.2821),
    ) -> None:
        super().__init__(root, image_size=image_size, normalize=normalize, augment=augment)
        if class_order not in ("sorted", "wnids"):
            raise ValueError(f"`class_order` is {class_order!r}; expected 'sorted' or 'wnids'.")
        self.class_order = class_order
        if normalize:
            self.std = (std[0], std[1], std[2])

    def _open(self) -> None:
        needed = ("wnids.txt", "words.txt", "train", "val/images", "val/val_annotations.txt")
        download = "download http://cs231n.stanford.edu/tiny-imagenet-200.zip (248 MB)"
        folder = unpacked_archive(self.root, "tiny-imagenet-200", needed, "Tiny-ImageNet", download, "train")
        listed = read_wnids(folder / "wnids.txt")
        wnids = sorted(listed)
        train = image_files(folder / "train", wnids)
        test = read_annotations(folder / "val" / "val_annotations.txt", wnids)
        _check_unpacked(folder, wnids, train[0], test[0])
        self._folders = {"train": folder / "train", "test": folder / "val" / "images"}
        order = wnids if self.class_order == "sorted" else listed
        new_id = [order.index(wnid) for wnid in wnids]
        train, test = ((paths, [new_id[label] for label in labels]) for paths, labels in (train, test))
        self._publish(read_words(folder / "words.txt", order), train, test)

    def file_names(self, split: Split) -> Sequence[str]:
        """``<wnid>/<file>`` of the training images, as published lists have them; names of the test images."""
        return [path.replace("/images/", "/") for path in self._paths[split]]


def _check_unpacked(folder: Path, wnids: Sequence[str], train: Sequence[str], val: Sequence[str]) -> None:
    """Raise a ``FileNotFoundError`` if images that the text files name are not there."""
    listed = {
        f"{wnid}/images/{name}" for wnid in wnids for name in _boxes(folder / "train" / wnid / f"{wnid}_boxes.txt")
    }
    empty = sorted(set(wnids) - {path.split("/")[0] for path in train})
    absent = {
        "train": sorted(listed - set(train)) + [f"{wnid}/images" for wnid in empty],
        "val/images": sorted(set(val) - {path.name for path in (folder / "val" / "images").iterdir()}),
    }
    for place, names in absent.items():
        if names:
            raise FileNotFoundError(
                f"Tiny-ImageNet in {str(folder)!r} is not complete: {len(names)} listed image(s) or class folder(s) "
                f"are missing in {place}, such as {names[0]!r}; unpack the whole archive again."
            )


def _boxes(path: Path) -> list[str]:
    """File names in the list of a class's bounding boxes, which some copies leave out."""
    if not path.is_file():
        return []
    return [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
