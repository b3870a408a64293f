"""Scikit-learn's handwritten digits: real images that come with the package, so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cl.datamodules.sources.base import Split, draws_nothing
from lightning_cl.datamodules.sources.images import Augment, ImageSource, split_off_test

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits(ImageSource):
    """1,797 grey 8x8 images of the ten digits (UCI optical recognition test set, in ``sklearn.datasets``).

    Items are uint8 tensors ``(1, 8, 8)``; the original 17 grey levels are scaled to 0..255.

    Args:
        test_fraction: Share of each class that makes the test split, in (0, 1).
        split_seed: Decides which samples those are; it does not depend on the seed of the stream.
        image_size: Height and width in pixels that images are resized to (bilinear); ``None``: 16.
        normalize: Subtract the data set's mean and divide by its standard deviation.
        augment: ``"none"`` (default) or ``"crop"``: shifts by up to an eighth of the size. Digits are never mirrored.
        rgb: Repeat the grey channel three times, for backbones that expect colour.
        superclass_of_class: The superclass of each of the ten digits, a number from 0 or a name; ``None``: none.

    Raises:
        ValueError: If ``test_fraction`` is not in (0, 1) or ``augment`` is ``"flip"``; in :meth:`setup`, if there are
            not ten superclasses.
    """

    mean, std = (0.3053,), (0.3760,)
    native_size, default_image_size = 8, 16
    default_augment, photographs = "none", False

    def __init__(
        self,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        image_size: int | None = None,
        normalize: bool = True,
        augment: Augment | None = None,
        rgb: bool = False,
        superclass_of_class: Sequence[int | str] | None = None,
    ) -> None:
        super().__init__(image_size, normalize, augment, rgb)
        if not 0.0 < test_fraction < 1.0:
            raise ValueError(f"`test_fraction` is {test_fraction}; give a fraction of the images, in (0, 1).")
        self.test_fraction, self.split_seed = test_fraction, split_seed
        self.superclass_of_class = superclass_of_class

    def _open(self) -> None:
        import torch
        from sklearn.datasets import load_digits

        data = load_digits()
        labels = torch.from_numpy(data.target).long()
        images = torch.from_numpy(data.images).mul(255 / 16).round().to(torch.uint8)[:, None]  # (N, 1, 8, 8)
        train, test = split_off_test(labels, self.test_fraction, self.split_seed)
        self._images = {"train": images[train], "test": images[test]}
        self._describe(labels[train], labels[test], _NAMES, superclass_of_class=self.superclass_of_class)

    @draws_nothing
    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: uint8 ``(1, 8, 8)`` and an int."""
        labels = self.train_labels if split == "train" else self.test_labels
        return self._images[split][index], int(labels[index])
