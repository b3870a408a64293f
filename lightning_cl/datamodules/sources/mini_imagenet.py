"""miniImageNet as few-shot class-incremental papers use it: 100 ImageNet classes of 600 images."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.image_folder import ImageFolder, unpacked_archive
from lightning_cl.datamodules.sources.images import Augment


def read_split(path: Path) -> list[tuple[str, str]]:
    """File names and wnids of a split, in the order of the file.

    Raises:
        ValueError: If the first line is not ``filename,label`` or a line has other columns.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows or rows[0] != ["filename", "label"] or any(len(row) != 2 for row in rows):
        raise ValueError(f"{str(path)!r} should have the columns `filename,label`, as n0153282900000005.jpg,n01532829.")
    return [(name, wnid) for name, wnid in rows[1:]]


def class_name(wnid: str) -> str:
    """First lemma of an ImageNet class in WordNet, or the wnid itself where timm does not know it."""
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo("imagenet-1k")
    if wnid not in info.label_names():
        return wnid
    return str(info.label_name_to_description(wnid)).split(",")[0].strip()


class MiniImageNet(ImageFolder):
    """miniImageNet with the split of few-shot class-incremental papers: 100 classes, 500 / 100 images each.

    The layout is that of CEC (arXiv:2104.03047): ``images/*.jpg``, ``split/train.csv`` and ``split/test.csv``. Class
    ids follow the first appearance of a class in ``train.csv``; names are the first WordNet lemma. Published index
    lists of sessions name files as ``<wnid>/<file>``.

    Args:
        root: The folder that holds ``miniimagenet``, or that folder itself.
        image_size: Height and width in pixels of the transformed images.
        normalize: Use ImageNet's mean and standard deviation; ``False`` leaves pixels in [0, 1].
        augment: See :class:`ImageFolder`.

    Raises:
        FileNotFoundError: In :meth:`setup`, if the folder or a part of it is missing.
        ValueError: In :meth:`setup`, if a split is of another kind or has a class that the other has not.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        image_size: int = 84,
        normalize: bool = True,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(root, image_size=image_size, normalize=normalize, augment=augment)

    def _open(self) -> None:
        needed = ("images", "split/train.csv", "split/test.csv")
        download = "get the copy of CEC (github.com/icoz69/CEC-CVPR2021 says where)"
        folder = unpacked_archive(self.root, "miniimagenet", needed, "miniImageNet", download, "images")
        rows = {split: read_split(folder / "split" / f"{split}.csv") for split in ("train", "test")}
        wnids = list(dict.fromkeys(wnid for _, wnid in rows["train"]))
        unknown = sorted({wnid for _, wnid in rows["test"]} - set(wnids))
        if unknown:
            raise ValueError(
                f"test.csv has the classes {unknown[:5]}, which train.csv has not; use files of one split."
            )
        files = {path.name for path in (folder / "images").iterdir()}
        absent = [name for part in rows.values() for name, _ in part if name not in files]
        if absent:
            raise FileNotFoundError(
                f"{len(absent)} listed images are not in {str(folder / 'images')!r}, such as {absent[0]!r}; unpack all."
            )
        label = {wnid: at for at, wnid in enumerate(wnids)}
        self._wnids = {split: [wnid for _, wnid in part] for split, part in rows.items()}
        self._folders = {"train": folder / "images", "test": folder / "images"}
        parts = [([n for n, _ in rows[s]], [label[w] for _, w in rows[s]]) for s in ("train", "test")]
        self._publish([class_name(wnid) for wnid in wnids], parts[0], parts[1])

    def file_names(self, split: Split) -> Sequence[str]:
        """``<wnid>/<file>`` of each image, as published lists have them."""
        return [f"{wnid}/{name}" for wnid, name in zip(self._wnids[split], self._paths[split], strict=True)]
