"""Soft Hebbian learning: units that win for an input turn towards it, without labels and without a gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_hebbian(rows: Tensor, inputs: Tensor, temperature: float = 1.0) -> Tensor:
    """``(K, D)`` sum over the inputs of ``y_k (x - u_k w_k)`` with ``u = W x`` and ``y = softmax(u / temperature)``.

    Oja's rule with a soft competition of the units: rows of unit length keep it to first order.

    Args:
        rows: ``(K, D)`` ``W``, one row for each unit.
        inputs: ``(N, D)`` ``x``.
        temperature: Above 0; the lower, the more the winner takes.
    """
    u = inputs @ rows.T  # (N, K)
    y = (u / temperature).softmax(dim=1)
    return y.T @ inputs - (y * u).sum(dim=0)[:, None] * rows


def patches(layer: Any, images: Tensor) -> Tensor:
    """``(N, C * kh * kw)`` what a convolution of one group reads of ``(B, C, H, W)`` images, patch by patch."""
    options = {"dilation": layer.dilation, "padding": layer.padding, "stride": layer.stride}
    found = F.unfold(images, layer.kernel_size, **options)  # (B, C * kh * kw, L)
    return found.transpose(1, 2).flatten(0, 1)


def unit_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``(K, D)`` rows of a ``(K, ...)`` weight at unit length, and ``(K, 1)`` their lengths."""
    flat = weight.flatten(1)
    lengths = flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    return flat / lengths, lengths


@torch.no_grad()
def turn_rows_(weight: Tensor, change: Tensor) -> None:
    """Add ``(K, D)`` to the rows of a ``(K, ...)`` weight at unit length, in place; each row keeps its length."""
    rows, lengths = unit_rows(weight)
    weight.copy_((lengths * F.normalize(rows + change, dim=1)).view_as(weight))
