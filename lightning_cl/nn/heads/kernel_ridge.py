"""Kernel ridge regression on the one-hot labels of a few features, through which gradients pass."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: ``a b``; ``(a b + 1)^3``; ``exp(-0.25 |a - b|_1)``.
Kernel = Literal["linear", "polynomial", "rbf"]


def kernel_matrix(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """``(N, M)`` kernel of ``(N, D)`` and ``(M, D)`` features, as in the code of kernel continual learning."""
    if kernel == "rbf":
        return (-0.25 * torch.cdist(a, b, p=1)).exp()
    product = a @ b.T
    return product if kernel == "linear" else (product + 1) ** 3


def kernel_ridge(features: Tensor, support: Tensor, targets: Tensor, ridge: Tensor, kernel: Kernel) -> Tensor:
    """``K(x, S) (K(S, S) + ridge I)^-1 Y``, solved by Cholesky in float64 (arXiv:2107.05757).

    Args:
        features: ``(B, D)`` of samples, the ``x``.
        support: ``(M, D)`` features that are known, the ``S``; their order does not matter.
        targets: ``(M, C)`` of these, the ``Y``.
        ridge: A scalar above 0.
        kernel: Which one.

    Returns:
        ``(B, C)`` in float64; gradients pass to features, support and ridge.
    """
    with torch.autocast(features.device.type, enabled=False):
        x, s = features.double(), support.double()
        gram = kernel_matrix(s, s, kernel) + ridge.double() * torch.eye(len(s), dtype=s.dtype, device=s.device)
        weights = torch.cholesky_solve(targets.double(), torch.linalg.cholesky(gram))
        return kernel_matrix(x, s, kernel) @ weights
