"""Single images as classes: what is recognised later is the very image, hidden in part or under noise."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.batch_form import with_transformed
from lightning_cl.datamodules.sampling import mix_seed, permutation
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.corrupted import pixels
from lightning_cl.datamodules.sources.derived import DerivedSource
from lightning_cl.datamodules.sources.items import replace_label


class Instances(DerivedSource):
    """The classes of the instance test (CFSL; Kowadlo et al., arXiv:2209.07863): each is one image of another source.

    ``count`` training images of each of ``ways`` classes, drawn from the seed, become classes of their own; the
    evaluation split has the same images, degraded. Numbers go image by image and within that class by class, so that
    :class:`InstanceTest` deals them out in support sets of which no two share an image. The model must tell images
    apart that look alike. Images must be uint8 tensors ``(C, H, W)`` or PIL images; the source's transforms come
    behind.

    Args:
        source: Any source of images.
        count: Images of each class; the paper's tests have 20 in all.
        ways: Classes from which they are drawn.
        occlusion: Share of the area that a grey square covers in evaluation, somewhere in each image, in [0, 1).
        noise: Standard deviation of Gaussian noise in evaluation, at least 0, of pixels in [0, 1].
        seed: Decides classes, images, places and noise.

    Raises:
        ValueError: If a number is out of its range; in :meth:`setup`, if there are fewer classes or images.
    """

    def __init__(
        self, source: Source, count: int = 20, ways: int = 1, occlusion: float = 0.0, noise: float = 0.0, seed: int = 0
    ) -> None:
        for name, value in (("count", count), ("ways", ways)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")
        if not 0 <= occlusion < 1 or noise < 0:
            raise ValueError(
                f"`occlusion` is {occlusion} and `noise` is {noise}; give a share below 1, and a deviation from 0 on."
            )
        self.source, self.count, self.ways = source, count, ways
        self.occlusion, self.noise, self.seed = occlusion, noise, seed

    def _open(self) -> None:
        source = self._opened()
        source.check_single_label("Instances")
        self.index = chosen_images(source.train_labels, source.num_classes, self.count, self.ways, self.seed)
        labels = torch.arange(len(self.index))
        own = source.train_labels[self.index].tolist()
        names = [f"{source.class_names[c]}, image {i}" for c, i in zip(own, self.index.tolist(), strict=True)]
        self._describe(labels, labels, names)

    def item(self, split: Split, index: int) -> Any:
        """The image with its own number as label; of the evaluation split degraded."""
        item = replace_label(self.source.item("train", int(self.index[index])), lambda _: index, None)
        if split == "train" or not (self.occlusion or self.noise):
            return item
        return with_transformed(item, partial(self._degraded, index))

    def _degraded(self, index: int, image: Any) -> Tensor:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, index))
        found = degrade(pixels(image), self.occlusion, self.noise, generator)
        return found.mul(255).round().to(torch.uint8)


def chosen_images(labels: Tensor, num_classes: int, count: int, ways: int, seed: int) -> Tensor:
    """``(count * ways,)`` positions: the first image of each class, then the second of each, and so on.

    Args:
        labels: ``(N,)`` of the training split.
        num_classes: Of the source.
        count: Images of each class.
        ways: Classes.
        seed: Decides both; more images or classes do not change those before.

    Raises:
        ValueError: If there are fewer classes, or images of a class.
    """
    if ways > num_classes:
        raise ValueError(f"`ways` is {ways}, but the source has {num_classes} classes; use at most as many.")
    columns = []
    for label in permutation(num_classes, seed)[:ways].tolist():
        members = (labels == label).nonzero().flatten()
        if len(members) < count:
            raise ValueError(f"`count` is {count}, but the class {label} has {len(members)} training images; lower it.")
        columns.append(members[permutation(len(members), seed, label)[:count]])
    return torch.stack(columns, dim=1).flatten()


def degrade(image: Tensor, occlusion: float, noise: float, generator: torch.Generator) -> Tensor:
    """An image with a grey square somewhere within it, and noise.

    Args:
        image: ``(C, H, W)`` in [0, 1].
        occlusion: Share of the area, in [0, 1).
        noise: Standard deviation, at least 0.
        generator: On the CPU.

    Returns:
        ``(C, H, W)`` in [0, 1].
    """
    height, width = image.shape[-2:]
    rows, columns = (round(size * occlusion**0.5) for size in (height, width))
    top, left = (
        int(torch.randint(size - part + 1, (), generator=generator))
        for size, part in ((height, rows), (width, columns))
    )
    found = image.clone()
    found[:, top : top + rows, left : left + columns] = 0.5
    return (found + noise * torch.randn(image.shape, generator=generator)).clamp(0, 1)
