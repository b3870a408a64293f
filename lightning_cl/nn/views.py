"""Random views of images: a whole batch changed alike for averages of answers, each by its own draws for contrast."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor


def random_view(images: Tensor, generator: torch.Generator, flip: bool = True) -> Tensor:
    """Change brightness, colour, place and sharpness of a whole batch by one draw each (CoTTA, cifar/cotta.py).

    Clip to [0, 1]; brightness, contrast and saturation by up to 1.4, hue by up to 0.06 of a turn and a gamma of 0.7 to
    1.3, in random order; with edges repeated, a turn by up to 15 degrees, a shift by up to a sixteenth and a scale of
    0.9 to 1.1; a blur of up to half a pixel; a mirroring in half of the cases; Gaussian noise of 0.005, the same
    for all images, so that it does not depend on how they are shared out; clip.

    Args:
        images: ``(B, C, H, W)`` in [0, 1]; of 3 channels for saturation and hue, which others do not have.
        generator: On the CPU.
        flip: Whether images may be mirrored, which turns some symbols into others.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    view = _jittered(images.clamp(0, 1), generator, draw)
    height, width = images.shape[-2:]
    margin = [width // 2, height // 2]
    view = F.pad(view, margin, padding_mode="edge")
    shift = [round(draw(-size / 16, size / 16)) for size in (width, height)]
    view = F.affine(view, draw(-15, 15), shift, draw(0.9, 1.1), [0.0, 0.0], interpolation=InterpolationMode.BILINEAR)
    view = F.gaussian_blur(view, [5, 5], [draw(0.001, 0.5)] * 2)
    view = F.center_crop(view, [height, width])
    if flip and draw(0, 1) < 0.5:
        view = view.flip(-1)
    noise = torch.randn(view.shape[1:], generator=generator).to(view)  # of all images, however many a process has
    noisy: Tensor = (view + 0.005 * noise).clamp(0, 1)
    return noisy


def _jittered(images: Tensor, generator: torch.Generator, draw: Callable[[float, float], float]) -> Tensor:
    """Brightness, contrast, saturation, hue and gamma, in random order."""
    from torchvision.transforms.v2 import functional as F

    amounts = {name: draw(*edges) for name, edges in _RANGES.items()}
    names = list(_RANGES)
    for place in torch.randperm(len(names), generator=generator).tolist():
        name = names[place]
        if name not in ("saturation", "hue") or images.shape[1] == 3:
            images = getattr(F, f"adjust_{name}")(images, amounts[name]).clamp(0, 1)
    return images


_RANGES = {
    "brightness": (0.6, 1.4),
    "contrast": (0.7, 1.3),
    "saturation": (0.5, 1.5),
    "hue": (-0.06, 0.06),
    "gamma": (0.7, 1.3),
}


def contrastive_view(
    images: Tensor, draws: Tensor, least_area: float = 0.2, flip: bool = True, jitter: float = 0.4, gray: float = 0.2
) -> Tensor:
    """Cut, mirror and recolour each image by its own draws, as contrastive losses compare an image with its view.

    A rectangle of a random share of the area and a side ratio of 3/4 to 4/3 is scaled to the whole; half of the images
    are mirrored; in four of five cases the contrast changes by a factor of ``1 +- jitter``, and ``+- jitter`` is added
    to all values; some turn gray. It works on normalised images, of which brightness in the usual sense is not known.

    Args:
        images: ``(B, C, H, W)``.
        draws: ``(B, 9)`` uniform in [0, 1): area, ratio, place (two), mirroring, whether and how to recolour (three),
            gray. Given from outside, so that they do not depend on how images are shared out over processes.
        least_area: Smallest share of the area, in (0, 1]; 1 keeps the whole.
        flip: Whether images may be mirrored, which turns some symbols into others.
        jitter: At least 0.
        gray: Share of the images that turn gray, in [0, 1]; only where they have three channels.

    Returns:
        ``(B, C, H, W)``.
    """
    area, ratio, left, top, mirrored, changed, contrast, brightness, grayed = draws.to(images).unbind(dim=1)
    side = (least_area + (1 - least_area) * area).sqrt()
    stretch = (4 / 3) ** (ratio - 0.5)  # of one side; its inverse of the other
    stretch = torch.where(torch.maximum(stretch, 1 / stretch) * side <= 1, stretch, 1.0)  # a square, where it fits not
    width, height = side * stretch, side / stretch
    sign = torch.where(mirrored < 0.5, -1.0, 1.0).to(images) if flip else torch.ones_like(width)
    none = torch.zeros_like(width)
    x, y = (2 * left - 1) * (1 - width), (2 * top - 1) * (1 - height)
    turn = torch.stack([torch.stack([width * sign, none, x], 1), torch.stack([none, height, y], 1)], 1)  # (B, 2, 3)
    grid = nnf.affine_grid(turn, list(images.shape), align_corners=False)
    view = nnf.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    strength = jitter * (changed < 0.8).to(images)
    middle = view.mean(dim=(1, 2, 3), keepdim=True)
    view = middle + each(1 + strength * (2 * contrast - 1)) * (view - middle) + each(strength * (2 * brightness - 1))
    if images.shape[1] != 3:
        return view
    weights = view.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    luma = (weights * view).sum(dim=1, keepdim=True).expand_as(view)
    return torch.where(each(grayed < gray), luma, view)


def fixed_views(images: Tensor, count: int) -> Tensor:
    """Images and ``count - 1`` views of each, the same changes for all images and in every call, view after view.

    A view cuts out at least 0.6 of the area and changes contrast and brightness by up to 0.2; see
    :func:`contrastive_view`. Nothing is mirrored.

    Args:
        images: ``(B, C, H, W)`` floating point numbers; anything else comes ``count`` times as it is.
        count: At least 1.

    Returns:
        ``(count * B, ...)``.
    """
    if images.ndim != 4 or not images.is_floating_point():
        return images.repeat(count, *(1,) * (images.ndim - 1)) if images.ndim else images
    draws = torch.rand(count, 9, generator=torch.Generator().manual_seed(0))
    views = [contrastive_view(images, own.expand(len(images), 9), 0.6, False, 0.2, 0.0) for own in draws[1:]]
    return torch.cat([images, *views])
