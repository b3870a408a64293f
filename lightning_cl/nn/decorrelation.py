"""Local inhibition between the units of a layer: units that lie close to each other shall not answer together."""

from __future__ import annotations

import torch
from torch import Tensor


def local_inhibition(outputs: Tensor, importance: Tensor, scale: float) -> Tensor:
    """``sum_{i != j} exp(-a_i - a_j) exp(-(i - j)^2 / (2 scale^2)) h_i h_j``, the mean over rows (arXiv:1806.05421).

    Args:
        outputs: ``(N, U)`` answers of the units, not negative.
        importance: ``(U,)`` ``a``, not negative: how much earlier tasks need a unit; such units are left in peace.
        scale: Of the neighbourhood in units, above 0.
    """
    places = torch.arange(outputs.shape[1], device=outputs.device, dtype=outputs.dtype)
    near = (-(places[:, None] - places).square() / (2 * scale**2)).exp()
    near.fill_diagonal_(0)
    scaled = outputs * (-importance.to(outputs)).exp()
    return ((scaled @ near) * scaled).sum(1).mean()
