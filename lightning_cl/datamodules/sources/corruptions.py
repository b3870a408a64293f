"""Corruptions of images, after ImageNet-C in kind, for domains that a model was not trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: Strength of each corruption at severity 1 to 5.
SEVERITIES: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.1, 0.2, 0.3, 0.4, 0.5),  # standard deviation
    "impulse_noise": (0.03, 0.06, 0.1, 0.17, 0.27),  # share of pixels
    "blur": (0.6, 0.8, 1.0, 1.3, 1.6),  # standard deviation in pixels of a 16-pixel image
    "contrast": (0.6, 0.45, 0.3, 0.2, 0.12),  # share of the contrast that is left
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added
    "pixelate": (0.8, 0.7, 0.6, 0.5, 0.4),  # share of the pixels on each side
    "invert": (0.2, 0.4, 0.6, 0.8, 1.0),  # towards the negative
}


def corrupt(image: Tensor, name: str, severity: int, generator: torch.Generator) -> Tensor:
    """Corrupt one image.

    Args:
        image: ``(C, H, W)`` in [0, 1].
        name: One of :data:`SEVERITIES`.
        severity: 1 to 5.
        generator: On the CPU, for noise.

    Returns:
        ``(C, H, W)`` in [0, 1].

    Raises:
        ValueError: If the corruption or the severity is unknown.
    """
    check_corruption(name, severity)
    return _KINDS[name](image, SEVERITIES[name][severity - 1], generator).clamp(0, 1)


def check_corruption(name: str, severity: int) -> None:
    """Raise a ``ValueError`` if a corruption or its severity is unknown."""
    if name not in SEVERITIES:
        raise ValueError(f"there is no corruption {name!r}; give some of {', '.join(map(repr, SEVERITIES))}.")
    if not 1 <= severity <= 5:
        raise ValueError(f"`severity` is {severity}; give 1 to 5.")


def _gaussian_noise(image: Tensor, std: float, generator: torch.Generator) -> Tensor:
    return image + std * torch.randn(image.shape, generator=generator)


def _impulse_noise(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(image.shape, generator=generator)
    return image.masked_fill(drawn < share / 2, 0.0).masked_fill(drawn > 1 - share / 2, 1.0)


def _blur(image: Tensor, std: float, generator: torch.Generator) -> Tensor:
    std *= image.shape[-1] / 16
    reach = max(1, round(3 * std))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / std).square())
    kernel = weights / weights.sum()
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        padding = (0, 0, reach, reach) if shape[2] == -1 else (reach, reach, 0, 0)
        padded = F.pad(image[:, None], padding, mode="replicate")  # (C, 1, H', W')
        image = F.conv2d(padded, kernel.view(shape))[:, 0]
    return image


def _contrast(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    mean = image.mean(dim=(1, 2), keepdim=True)
    return mean + share * (image - mean)


def _brightness(image: Tensor, added: float, generator: torch.Generator) -> Tensor:
    return image + added


def _pixelate(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    size = [max(1, round(share * side)) for side in image.shape[1:]]
    small = F.interpolate(image[None], size=size, mode="area")
    return F.interpolate(small, size=list(image.shape[1:]), mode="nearest")[0]


def _invert(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    return (1 - share) * image + share * (1 - image)


_KINDS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "gaussian_noise": _gaussian_noise,
    "impulse_noise": _impulse_noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
    "invert": _invert,
}
