"""Default image transforms, and the base of the sources that use them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import hold_out
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.labels import as_ids

Augment = Literal["none", "flip", "crop"]


def check_augment(augment: str, photographs: bool) -> None:
    """Raise a ``ValueError`` if ``augment`` is unknown or would mirror symbols."""
    if augment not in ("none", "flip", "crop"):
        raise ValueError(f"`augment` is {augment!r}; expected 'none', 'flip' or 'crop'.")
    if augment == "flip" and not photographs:
        raise ValueError("`augment='flip'` would turn these symbols into others; use 'crop' (shifts) or 'none'.")


def geometry(
    image_size: int | None, native_size: int | None, augment: Augment = "none", photographs: bool = True
) -> list[Any]:
    """Resizing, cropping and flipping, as a list of torchvision v2 transforms on uint8 images ``(C, H, W)``.

    * ``"none"``: resize only. Images of unknown shape are resized so that a quarter of a crop's area is margin
      (``image_size * 256 / 224``, the ImageNet protocol) and cropped in the middle.
    * ``"flip"``: the same, and a horizontal flip in half of the cases.
    * ``"crop"``, images kept at their size: a shift by up to an eighth of it (4 pixels at 32) and a flip.
    * ``"crop"``, resized photographs: a random part of 8 % to 100 % of the area, resized, and a flip.

    Args:
        image_size: Height and width in pixels of the result; ``None``: as the images are.
        native_size: Height and width of all the images; ``None``: they differ or are not square.
        augment: See above.
        photographs: ``False`` for digits and letters, which are shifted but neither zoomed into nor mirrored.

    Raises:
        ValueError: If ``augment`` is unknown, mirrors symbols, or needs an image size and there is none.
    """
    from torchvision.transforms import v2

    check_augment(augment, photographs)
    size = image_size if image_size is not None else native_size
    if augment == "crop" and size is None:
        raise ValueError("`augment='crop'` needs `image_size` here, because the images are not all square of one size.")
    steps: list[Any] = []
    if augment == "crop" and photographs and size != native_size:
        steps.append(v2.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True))
    else:
        if size is not None and native_size is None:
            steps += [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
        elif size != native_size:
            steps.append(v2.Resize(size, antialias=True))
        if augment == "crop":
            assert size is not None
            steps.append(v2.RandomCrop(size, padding=size // 8))
    if augment != "none" and photographs:
        steps.append(v2.RandomHorizontalFlip())
    return steps


def _as_image(image: Any) -> Any:
    if isinstance(image, Tensor) and image.ndim > 2:
        return image
    from torchvision.transforms import v2

    return v2.functional.to_image(image)


def _three_channels(images: Tensor) -> Tensor:
    return images.expand(*images.shape[:-3], 3, -1, -1) if images.shape[-3] == 1 else images


class ImageTransform:
    """PIL image or uint8 tensor ``(C, H, W)`` to a plain float32 tensor, in [0, 1] before normalisation.

    Steps behind the last one that draws are applied to the images of a batch at once, which gives the same bits as one
    by one and saves most of the time that small images take.

    Args:
        steps: Transforms applied while the image is still uint8.
        mean: Per-channel mean in [0, 1] (one number serves all channels); ``None``: not normalised.
        std: Per-channel standard deviation.
        rgb: Repeat a grey channel three times.

    Attributes:
        draws: Whether a step may use a random generator.
        transforms: All steps, in their order.
    """

    def __init__(
        self, steps: Sequence[Any], mean: Sequence[float] | None, std: Sequence[float] | None, rgb: bool = False
    ) -> None:
        from torchvision.transforms import v2

        fixed = (v2.Resize, v2.CenterCrop)
        drawing = max((i for i, step in enumerate(steps, 1) if type(step) not in fixed), default=0)
        first = [_three_channels] if rgb else []
        tail = [v2.Normalize(list(mean), list(std))] if mean is not None and std is not None else []
        self.transforms = [*first, *steps, v2.ToDtype(torch.float32, scale=True), *tail, v2.ToPureTensor()]
        self.draws = drawing > 0
        split = drawing + len(first) if drawing else 0
        self._each, self._together = self.transforms[:split], self.transforms[split:]

    def __call__(self, image: Any) -> Any:
        """One image, ``(C, H, W)``."""
        return self.together([self.each(image)])[0]

    def each(self, image: Any) -> Tensor:
        """An image after all that is drawn, to be given to :meth:`together`."""
        return _in_turn(self._each, _as_image(image))

    def together(self, images: Sequence[Tensor]) -> Sequence[Tensor]:
        """What is left to do, for several images; at once if they are of one shape and type."""
        if len({(image.shape, image.dtype) for image in images}) == 1:
            return _in_turn(self._together, torch.stack([*images])).unbind()
        return [_in_turn(self._together, image) for image in images]


def _in_turn(steps: Sequence[Any], images: Tensor) -> Tensor:
    for step in steps:
        images = step(images)
    return images


def split_off_test(
    labels: Any, test_fraction: float, seed: int, class_names: Sequence[str] | None = None
) -> tuple[list[int], list[int]]:
    """Stratified split into sorted positions ``(train, test)``; every class keeps and gives at least one sample.

    A class with one sample keeps it for training, and a warning says so.

    Args:
        labels: ``(N,)`` integers from 0.
        test_fraction: The test split's share of each class, in (0, 1).
        seed: Decides which samples those are.
        class_names: One per class, for the warning; ``None``: the numbers.

    Raises:
        ValueError: If ``test_fraction`` is not in (0, 1).
    """
    ids = as_ids(labels, "labels")
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"`test_fraction` is {test_fraction}; give the test split's share of the images, in (0, 1).")
    counts = torch.bincount(ids)
    single = (counts == 1).nonzero().flatten().tolist()
    if single:
        shown = ", ".join(repr(class_names[label]) if class_names is not None else str(label) for label in single[:10])
        warnings.warn(
            f"{len(single)} of {int((counts > 0).sum())} classes have one image ({shown}), which is for training, so "
            "that they have no test images.",
            UserWarning,
            stacklevel=2,
        )
    several = (counts[ids] > 1).nonzero().flatten()
    held = several[hold_out(ids[several], test_fraction, seed)[1]]
    in_test = torch.zeros(len(ids), dtype=torch.bool).index_fill(0, held, True)
    return (~in_test).nonzero().flatten().tolist(), held.tolist()


class ImageSource(Source):
    """Base of the sources with default transforms; a member states facts as class attributes.

    Args:
        image_size: Height and width in pixels that images are resized to; ``None``: :attr:`default_image_size`, else
            as they are.
        normalize: Subtract the data set's mean and divide by its standard deviation. ``False`` leaves pixels in
            [0, 1], which the published prompt methods feed their ViT.
        augment: Training augmentation, see :func:`geometry`; ``None``: :attr:`default_augment`.
        rgb: Repeat a grey channel three times, for backbones that expect colour.
    """

    native_size: int | None = None
    default_image_size: ClassVar[int | None] = None
    default_augment: ClassVar[Augment] = "crop"
    photographs: ClassVar[bool] = True

    def __init__(
        self, image_size: int | None = None, normalize: bool = True, augment: Augment | None = None, rgb: bool = False
    ) -> None:
        if image_size is not None and image_size < 1:
            raise ValueError(f"`image_size` is {image_size}; give a number of pixels, at least 1, or None.")
        self._resize_to = image_size if image_size is not None else self.default_image_size
        self.image_size = self._resize_to if self._resize_to is not None else self.native_size
        self.normalize = normalize
        self.augment: Augment = augment if augment is not None else self.default_augment
        self.rgb = rgb
        check_augment(self.augment, self.photographs)
        if not normalize:
            self.mean = self.std = None

    def train_transform(self) -> Callable[[Any], Any]:
        """Augmentation, float32, normalisation: image to ``(C, image_size, image_size)``."""
        return self._transform(self.augment)

    def eval_transform(self) -> Callable[[Any], Any]:
        """Resizing, float32, normalisation: image to ``(C, image_size, image_size)``."""
        return self._transform("none")

    def _transform(self, augment: Augment) -> Callable[[Any], Any]:
        steps = geometry(self._resize_to, self.native_size, augment, self.photographs)
        return ImageTransform(steps, self.mean, self.std, self.rgb)
