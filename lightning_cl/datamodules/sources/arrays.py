"""Images held in arrays, or in one ``.npz`` file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sources.array_layout import TABLES, Layout, TableTransform, as_images, check_layout
from lightning_cl.datamodules.sources.base import Split, draws_nothing
from lightning_cl.datamodules.sources.images import Augment, ImageSource
from lightning_cl.datamodules.sources.label_map import LabelMap, check_label_map, map_labels
from lightning_cl.datamodules.sources.labels import ClassNames
from lightning_cl.datamodules.sources.pictures import read_picture

_SPLITS: tuple[Split, Split] = ("train", "test")


class JpegImages(Sequence[Any]):
    """JPEG files glued end to end; image ``i`` is ``data[offsets[i]:offsets[i + 1]]``.

    Args:
        data: ``(num_bytes,)`` uint8.
        offsets: ``(N + 1,)`` integers, ascending.
        name: Where the data are from, for errors.
    """

    def __init__(self, data: Any, offsets: Any, name: str = "") -> None:
        self.data, self.offsets, self.name = data, offsets, name

    def __len__(self) -> int:
        return max(len(self.offsets) - 1, 0)

    def _file(self, index: int) -> io.BytesIO:
        return io.BytesIO(self.data[self.offsets[index] : self.offsets[index + 1]].tobytes())

    def __getitem__(self, index: Any) -> Any:
        return read_picture(self._file(index), f"{self.name}[{index}]")  # some files of colour data sets are grey

    def size(self) -> tuple[int, int]:
        """Height and width of the first image, from its header."""
        from PIL import Image

        width, height = Image.open(self._file(0)).size
        return height, width


def read_npz(archive: Mapping[str, Any], names: Sequence[str], path: Path, split: Split) -> tuple[Any, Any]:
    """Images and labels of one split of an opened ``.npz`` file, whose keys are ``names``.

    Raises:
        ValueError: If keys are missing; the message names those that were found.
    """
    pixels, jpeg, offsets, labels = (f"{split}_{part}" for part in ("x", "jpeg", "off", "y"))
    if labels in names and pixels in names:
        return archive[pixels], archive[labels]
    if labels in names and jpeg in names and offsets in names:
        return JpegImages(archive[jpeg], archive[offsets], f"{path.name}:{jpeg}"), archive[labels]
    for images, targets in ((f"x_{split}", f"y_{split}"), (f"{split}_images", f"{split}_labels")):
        if images in names and targets in names:
            found = archive[targets]
            return archive[images], found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    raise ValueError(
        f"{path.name!r} has no {split} split: expected the keys {labels!r} and {pixels!r} (pixels), or {labels!r}, "
        f"{jpeg!r} and {offsets!r} (JPEG files), but found {', '.join(map(repr, sorted(names)))}; rename the keys."
    )


class ArraySource(ImageSource):
    """Images that are in memory, or in one ``.npz`` file.

    A file has the keys ``train_x``, ``train_y``, ``test_x``, ``test_y`` and, if there are names, ``class_names``; in
    place of ``train_x`` there may be ``train_jpeg`` and ``train_off`` (see :class:`JpegImages`), likewise for the test
    split. ``x_train`` and ``y_train``, and ``train_images`` and ``train_labels``, are known, too. Domains may be in
    ``train_domains``, ``test_domains`` and ``domain_names``, superclasses in ``superclass_of_class`` and
    ``superclass_names``. Nothing in it is unpickled.

    Args:
        train: ``(images, labels)``, or the path of a ``.npz`` file with both splits. Images are arrays ``(N, H, W)`` or
            ``(N, H, W, C)``, or tensors ``(N, H, W)`` or ``(N, C, H, W)``, with C = 1 or 3, unless ``layout`` says
            more; uint8, uint16, or floating point in [0, 1]. Labels are integers or class names.
        test: ``(images, labels)`` if ``train`` is; otherwise left out.
        class_names: One per class, ``{name: id}`` or ``{id: name}``; ``None``: as in the file, else the labels' own
            names in sorted order, or the numbers.
        train_domains: ``(N_train,)`` integers from 0; ``None``: as in the file, else there are no domains.
        test_domains: ``(N_test,)`` integers from 0.
        domain_names: One per domain; ``None``: as in the file, else the numbers.
        image_size: Height and width in pixels that images are resized to; ``None``: as they are.
        mean: Per-channel mean in [0, 1] that is subtracted; ``None``: not normalised. It is not computed from the data,
            because that would use images of tasks to come.
        std: Per-channel standard deviation, given together with ``mean``.
        augment: Training augmentation: ``"none"``; ``"flip"``; ``"crop"``: at the original size a shift by up to an
            eighth and a flip, resized a random crop of 8 % to 100 % of the area and a flip.
        rgb: Repeat a grey channel three times, for backbones that expect colour.
        layout: What the dimensions are: ``"NHW"``, ``"NHWC"`` or ``"NCHW"`` for images with any number of channels,
            floating point of any range if they are not 1 or 3; ``"ND"`` for a table of features, ``"NTD"`` for series
            of T steps. Those of the last two are served as float32, ``mean`` and ``std`` are per feature, and nothing
            is resized or augmented. ``None``: see ``train``.
        label_map: ``"compact"`` numbers the labels of the training split 0..C-1 in ascending order, and keeps their
            names, where labels leave gaps or start at 1.
        superclass_of_class: The superclass of each class, in their order, as numbers from 0 or names; or a dictionary
            from the name of a class to that of its superclass, from that to the one above, and so on, with all classes
            at one depth. ``None``: as in the file, else there are none.
        superclass_names: Of superclasses that are numbers; ``None``: as in the file, else the numbers.

    Raises:
        ValueError: If ``layout`` or ``label_map`` is unknown, or a table is to be resized or augmented; in
            :meth:`setup`, if keys are missing, shapes, types or ranges are not as above, images and labels
            differ in number, labels are not ``0 .. C-1`` with training samples each, a class has no superclass where
            others have, or the superclasses make a cycle.
        FileNotFoundError: In :meth:`setup`, if there is no such file.
    """

    default_augment = "none"

    def __init__(
        self,
        train: str | os.PathLike[str] | tuple[Any, Any],
        test: tuple[Any, Any] | None = None,
        class_names: ClassNames | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        augment: Augment | None = None,
        rgb: bool = False,
        layout: Layout | None = None,
        label_map: LabelMap | None = None,
        superclass_of_class: Any = None,
        superclass_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(image_size, mean is not None, augment, rgb)
        check_layout(layout, image_size, self.augment, rgb)
        check_label_map(label_map)
        self.layout, self.label_map = layout, label_map
        if (mean is None) != (std is None):
            raise ValueError(f"`mean` is {mean} and `std` is {std}; give both, or neither to leave pixels in [0, 1].")
        if isinstance(train, (str, os.PathLike)):
            if test is not None:
                raise ValueError("`train` is a file, which holds both splits; leave `test` out.")
        elif test is None:
            raise ValueError("`train` is given as arrays but `test` is not; pass `test=(images, labels)`.")
        self.mean, self.std = mean, std
        self._given: dict[Split, Any] = {"train": train, "test": test}
        self._names = {"class_names": class_names, "domain_names": domain_names}
        self._domains = {"train_domains": train_domains, "test_domains": test_domains}
        self._superclasses = {"superclass_of_class": superclass_of_class, "superclass_names": superclass_names}

    def _open(self) -> None:
        train, test = self._given["train"], self._given["test"]
        facts: dict[str, Any] = {**self._names, **self._domains, **self._superclasses}
        if isinstance(train, (str, os.PathLike)):
            train, test = self._read(Path(train), facts)
        self._images = {"train": self._checked(train, "train"), "test": self._checked(test, "test")}
        self.native_size = self._square_size()
        self.image_size = self._resize_to if self._resize_to is not None else self.native_size
        self._describe(*self._read_labels(train[1], test[1], facts.pop("class_names")), **facts)

    def _read_labels(self, train: Any, test: Any, names: ClassNames | None) -> tuple[Any, Any, ClassNames | None]:
        """Labels of both splits as integers, and the names of the classes."""
        labels = map_labels(train, test, names, self.label_map)
        return labels.train, labels.test, labels.names

    def _read(self, path: Path, facts: dict[str, Any]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        if not path.is_file():
            raise FileNotFoundError(f"`train`={str(path)!r} is not a file; give the path of a .npz file, or arrays.")
        with np.load(path, allow_pickle=False) as archive:
            for key, value in facts.items():
                if value is None and key in archive.files:
                    facts[key] = archive[key].tolist() if key.endswith("names") else archive[key]
            train, test = (read_npz(archive, archive.files, path, split) for split in _SPLITS)
        return train, test

    def _checked(self, part: Any, split: str) -> Any:
        if not isinstance(part, (tuple, list)) or len(part) != 2:
            raise ValueError(f"`{split}` must be a pair (images, labels), but it is {type(part).__name__}.")
        is_jpeg = isinstance(part[0], JpegImages)
        images = part[0] if is_jpeg else as_images(part[0], f"{split} images", self.layout)
        if len(images) != len(part[1]):
            raise ValueError(f"`{split}` has {len(images)} images but {len(part[1])} labels; give one label per image.")
        return images

    def _square_size(self) -> int | None:
        if self.layout in TABLES:
            return None
        parts = [part for part in self._images.values() if len(part)]
        sides = {side for part in parts for side in (part.size() if isinstance(part, JpegImages) else part.shape[-2:])}
        return sides.pop() if len(sides) == 1 else None

    @draws_nothing
    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: a tensor ``(C, H, W)`` (``(D,)`` or ``(T, D)``), or an RGB PIL image, and an int."""
        labels = self.train_labels if split == "train" else self.test_labels
        image = self._images[split][index]
        if (
            self.layout not in TABLES and isinstance(image, Tensor) and image.dtype == torch.uint16
        ):  # unknown to resizing
            image = image.float() / 65535
        return image, int(labels[index])

    def rows(self, split: Split, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """Of a table."""
        if self.layout not in TABLES or type(self).item is not ArraySource.item:
            return None
        return self._images[split][places], self.targets(split)[places]

    def _transform(self, augment: Augment) -> Callable[[Any], Any]:
        if self.layout in TABLES:
            return TableTransform(self.mean, self.std)
        return super()._transform(augment)
