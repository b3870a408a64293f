"""Images held in arrays, or in one ``.npz`` file."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.images import Augment, ImageSource

_SPLITS: tuple[Split, Split] = ("train", "test")


def as_images(values: Any, what: str) -> Tensor:
    """Images as one ``(N, C, H, W)`` tensor that shares memory with ``values`` where possible.

    Args:
        values: NumPy array ``(N, H, W)`` or ``(N, H, W, C)``, or tensor ``(N, H, W)`` or ``(N, C, H, W)``; uint8, or
            floating point in [0, 1]; ``C`` is 1 or 3.
        what: Name of the values in an error message.

    Raises:
        ValueError: If shape or dtype are others.
    """
    channels_last = not isinstance(values, Tensor)
    images = torch.from_numpy(np.asarray(values)) if channels_last else values
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and channels_last:
        images = images.movedim(3, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        layout = "arrays are (N, H, W) or (N, H, W, C)" if channels_last else "tensors are (N, H, W) or (N, C, H, W)"
        raise ValueError(f"`{what}` has shape {tuple(np.shape(values))}, but {layout} with C = 1 or 3.")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"`{what}` is {images.dtype}; expected uint8 in 0..255, or floating point in [0, 1].")
    return images


class JpegImages(Sequence[Any]):
    """JPEG files glued end to end; image ``i`` is ``data[offsets[i]:offsets[i + 1]]``.

    Args:
        data: ``(num_bytes,)`` uint8.
        offsets: ``(N + 1,)`` integers, ascending.
    """

    def __init__(self, data: Any, offsets: Any) -> None:
        self.data, self.offsets = data, offsets

    def __len__(self) -> int:
        return max(len(self.offsets) - 1, 0)

    def _open(self, index: int) -> Any:
        from PIL import Image

        return Image.open(io.BytesIO(self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()))

    def __getitem__(self, index: Any) -> Any:
        return self._open(index).convert("RGB")  # some files of colour data sets are stored grey

    def size(self) -> tuple[int, int]:
        """Height and width of the first image, from its header."""
        width, height = self._open(0).size
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
        return JpegImages(archive[jpeg], archive[offsets]), archive[labels]
    raise ValueError(
        f"{path.name!r} has no {split} split: expected the keys {labels!r} and {pixels!r} (pixels), or {labels!r}, "
        f"{jpeg!r} and {offsets!r} (JPEG files), but found {', '.join(map(repr, sorted(names)))}; rename the keys."
    )


class ArraySource(ImageSource):
    """Images that are in memory, or in one ``.npz`` file.

    A file has the keys ``train_x``, ``train_y``, ``test_x``, ``test_y`` and, if there are names, ``class_names``; in
    place of ``train_x`` there may be ``train_jpeg`` and ``train_off`` (see :class:`JpegImages`), likewise for the test
    split. Domains may be in ``train_domains``, ``test_domains`` and ``domain_names``. Nothing in it is unpickled.

    Args:
        train: ``(images, labels)``, or the path of a ``.npz`` file with both splits. Images are arrays ``(N, H, W)`` or
            ``(N, H, W, C)``, or tensors ``(N, H, W)`` or ``(N, C, H, W)``; uint8, or floating point in [0, 1].
        test: ``(images, labels)`` if ``train`` is; otherwise left out.
        class_names: One per class; ``None``: as in the file, else the numbers.
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

    Raises:
        ValueError: In :meth:`setup`, if keys are missing, shapes or types are not as above, images and labels
            differ in number, or labels are not ``0 .. C-1`` with training samples each.
        FileNotFoundError: In :meth:`setup`, if there is no such file.
    """

    default_augment = "none"

    def __init__(
        self,
        train: str | os.PathLike[str] | tuple[Any, Any],
        test: tuple[Any, Any] | None = None,
        class_names: Sequence[str] | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        augment: Augment | None = None,
        rgb: bool = False,
    ) -> None:
        super().__init__(image_size, mean is not None, augment, rgb)
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

    def _open(self) -> None:
        train, test = self._given["train"], self._given["test"]
        facts: dict[str, Any] = {**self._names, **self._domains}
        if isinstance(train, (str, os.PathLike)):
            train, test = self._read(Path(train), facts)
        self._images = {"train": self._checked(train, "train"), "test": self._checked(test, "test")}
        self.native_size = self._square_size()
        self.image_size = self._resize_to if self._resize_to is not None else self.native_size
        self._describe(train[1], test[1], **facts)

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
        images = part[0] if isinstance(part[0], JpegImages) else as_images(part[0], f"{split} images")
        if len(images) != len(part[1]):
            raise ValueError(f"`{split}` has {len(images)} images but {len(part[1])} labels; give one label per image.")
        return images

    def _square_size(self) -> int | None:
        parts = [part for part in self._images.values() if len(part)]
        sides = {side for part in parts for side in (part.size() if isinstance(part, JpegImages) else part.shape[-2:])}
        return sides.pop() if len(sides) == 1 else None

    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: a tensor ``(C, H, W)``, or for JPEG files an RGB PIL image, and an int."""
        labels = self.train_labels if split == "train" else self.test_labels
        return self._images[split][index], int(labels[index])
