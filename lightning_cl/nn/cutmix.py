"""CutMix: a rectangle of an image is replaced by that of another, and the label counts by the area."""

from __future__ import annotations

import torch
from torch import Tensor


def cutmix(images: Tensor, others: Tensor, kept: float, centre: tuple[float, float]) -> tuple[Tensor, float]:
    """Images with a rectangle of other images (Yun et al., ICCV 2019, arXiv:1905.04899).

    Args:
        images: ``(B, C, H, W)``.
        others: As many, of the same shape.
        kept: Share of the area that is to stay, in [0, 1]; the rectangle is cut off at the border.
        centre: Of the rectangle, as shares of height and width, in [0, 1).

    Returns:
        The mixed images, and the share of the area that stayed.
    """
    sides = []
    for size, at in zip(images.shape[-2:], centre, strict=True):
        half, middle = int(size * (1 - kept) ** 0.5) // 2, int(at * size)
        sides.append((max(middle - half, 0), min(middle + half, size)))
    (top, bottom), (left, right) = sides
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    area = (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])
    return mixed, 1.0 - area


def draw_cutmix(generator: torch.Generator) -> tuple[float, tuple[float, float]]:
    """A share that stays, uniform in [0, 1] (CutMix with ``alpha=1``), and a uniform centre; of a CPU generator."""
    kept, row, column = torch.rand(3, dtype=torch.float64, generator=generator).tolist()
    return kept, (row, column)
