"""Weights that are chosen by a learned score for each (SupSup, PFNR)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def draw_scores(every: Iterable[Tensor]) -> None:
    """Draw scores at random, in place, as a linear layer of these inputs is drawn."""
    for scores in every:
        drawn = torch.empty(scores.shape, dtype=scores.dtype)
        nn.init.kaiming_uniform_(drawn, a=5**0.5)
        scores.data.copy_(drawn)


def best_scored(scores: Tensor, sparsity: float) -> Tensor:
    """A boolean mask of the elements whose magnitude is at least the ``k``-th smallest, ``k = 1 + round(s (n - 1))``.

    Args:
        scores: Any shape, with ``n`` elements.
        sparsity: Share ``s`` that is off, in [0, 1]; of 101 elements with 0.5, 51 are on.
    """
    rank = 1 + round(sparsity * (int(scores.numel()) - 1))  # a tensor while a module is traced
    size = scores.detach().abs()
    return size >= size.flatten().kthvalue(rank).values


def signed_constant(weight: Tensor) -> Tensor:
    """Weights of one size, ``sqrt(2 / inputs)``, with the signs of a layer's."""
    signed: Tensor = weight.sign() * (2 / weight[0].numel()) ** 0.5
    return signed
