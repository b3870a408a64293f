"""A source, and corrupted copies of it as further domains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.batch_form import with_transformed
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.corruptions import check_corruption, corrupt
from lightning_cl.datamodules.sources.derived import DerivedSource


class Corrupted(DerivedSource):
    """The images of a source as they are, domain 0, and once more for each corruption, domains 1, 2 and so on.

    Every domain has all images of its split; noise is the same whenever an image is read. The corruptions are after
    ImageNet-C (arXiv:1903.12261) in kind, with strengths for small images: not the published benchmark. Images must be
    uint8 tensors ``(C, H, W)`` or PIL images, as those of ``Digits`` and torchvision; the source's transforms come
    behind.

    Args:
        source: Any source of images without domains of its own.
        corruptions: Names, see :data:`lightning_cl.datamodules.sources.corruptions.SEVERITIES`.
        severity: 1 to 5, for all of them.
        seed: Of the noise.

    Raises:
        ValueError: If there is no corruption, or one, or the severity, is unknown; in :meth:`setup`, if the source has
            domains.
    """

    def __init__(self, source: Source, corruptions: Sequence[str], severity: int = 5, seed: int = 0) -> None:
        if not corruptions or isinstance(corruptions, str):
            raise ValueError(f"`corruptions` is {corruptions!r}; give a list of at least one name.")
        for name in corruptions:
            check_corruption(name, severity)
        self.source, self.corruptions, self.severity, self.seed = source, tuple(corruptions), severity, seed

    def _open(self) -> None:
        source = self._opened_for_copies()
        domains = 1 + len(self.corruptions)
        train, test = source.train_labels.repeat(domains), source.test_labels.repeat(domains)
        each = torch.arange(domains)
        of_train, of_test = (each.repeat_interleave(len(own)) for own in (source.train_labels, source.test_labels))
        self.levels, self.superclass_names = source.levels, source.superclass_names
        self._describe(train, test, source.class_names, of_train, of_test, ("clean", *self.corruptions))

    def item(self, split: Split, index: int) -> Any:
        """The source's item, its image corrupted as its domain says."""
        count = len(self.source.train_labels if split == "train" else self.source.test_labels)
        domain, place = divmod(index, count)
        item = self.source.item(split, place)
        if domain == 0:
            return item
        seed = mix_seed(self.seed, domain, place, split == "train")
        return with_transformed(item, partial(self._corrupted, self.corruptions[domain - 1], seed))

    def _corrupted(self, name: str, seed: int, image: Any) -> Tensor:
        found = corrupt(pixels(image), name, self.severity, torch.Generator().manual_seed(seed))
        return found.mul(255).round().to(torch.uint8)


def pixels(image: Any) -> Tensor:
    """An image as ``(C, H, W)`` in [0, 1]."""
    if isinstance(image, Tensor):
        return image.float() / 255
    found = torch.from_numpy(np.array(image)).float() / 255
    return found[None] if found.ndim == 2 else found.permute(2, 0, 1)
