"""What is done to an image before a model sees it, as plain values that are stored beside the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from lightning_cl.datamodules.sources.images import Augment, ImageTransform
from lightning_cl.datamodules.sources.pictures import read_picture

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, take the middle, scale to [0, 1], normalise.

    Attributes:
        image_size: Height and width in pixels that the model sees.
        channels: Number of channels that it sees; grey pictures are read for 1, RGB for 3.
        crop: Share of the resized shorter side that the middle has, in (0, 1].
        mean: Per-channel mean of images in [0, 1]; empty: not normalised.
        std: Per-channel standard deviation.
    """

    image_size: int
    channels: int = 3
    crop: float = 0.875
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def of(cls, module: nn.Module, image_size: int | None = None) -> Preprocessing:
        """As the timm network in ``module`` was trained; of another network the size must be given.

        Raises:
            ValueError: If there is no timm network and no ``image_size``.
        """
        from timm.data.config import resolve_data_config

        networks = [part for part in module.modules() if isinstance(getattr(part, "pretrained_cfg", None), Mapping)]
        if not networks and image_size is None:
            raise ValueError(
                f"the images that {type(module).__name__} takes are not known, since it holds no timm network; give "
                "their height and width in pixels as `image_size`."
            )
        if not networks:
            assert image_size is not None
            return cls(image_size, 3, 0.875, *_IMAGENET)
        network: Any = networks[0]
        resolve: Any = resolve_data_config
        found = resolve({}, model=network)
        own = getattr(getattr(network, "patch_embed", None), "img_size", None) or found["input_size"][1:]
        size = int(own[0] if isinstance(own, (tuple, list)) else own)
        mean, std = (tuple(float(v) for v in found[name]) for name in ("mean", "std"))
        return cls(image_size or size, int(found["input_size"][0]), float(found["crop_pct"]), mean, std)

    def transform(self, augment: Augment = "none") -> Callable[[Any], Tensor]:
        """A picture, or a uint8 tensor ``(C, H, W)``, to a float32 tensor ``(channels, image_size, image_size)``.

        Args:
            augment: Of a training image: ``"flip"`` as ``"none"`` and mirrored in half of the cases; ``"crop"``: a
                random part of 8 % to 100 % of the area, and mirrored.
        """
        from torchvision.transforms import v2

        whole = [v2.Resize(round(self.image_size / self.crop), antialias=True), v2.CenterCrop(self.image_size)]
        part = [v2.RandomResizedCrop(self.image_size, scale=(0.08, 1.0), antialias=True)]
        steps = (part if augment == "crop" else whole) + ([v2.RandomHorizontalFlip()] if augment != "none" else [])
        return ImageTransform(steps, self.mean or None, self.std or None)

    def read(self, path: str | os.PathLike[str]) -> Any:
        """The picture of a file, with the model's number of channels.

        Raises:
            OSError: If it cannot be read, or has other channels that cannot be turned into these; it is named.
        """
        return read_picture(os.fspath(path), os.fspath(path), None if self.channels == 3 else self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Inverse of :meth:`to_dict`."""
        lists = {name: tuple(values[name]) for name in ("mean", "std")}
        return cls(**{**values, **lists})
