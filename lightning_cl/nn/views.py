"""Random views of a batch of images, all of it changed alike, as CoTTA averages its answers over."""

from __future__ import annotations

from collections.abc import Callable

import torch
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
