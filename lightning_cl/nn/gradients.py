"""Change a gradient so that the loss on earlier samples does not rise: the projections of A-GEM and GEM."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from scipy.optimize import nnls
from torch import Tensor


def flat(gradients: Iterable[Tensor]) -> Tensor:
    """``(D,)`` all of them, one after the other."""
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def write_flat(vector: Tensor, gradients: Iterable[Tensor]) -> None:
    """Write a ``(D,)`` vector over gradients, in place; the inverse of :func:`flat`."""
    start = 0
    for gradient in gradients:
        gradient.copy_(vector[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def project_on_reference(gradient: Tensor, reference: Tensor) -> Tensor:
    """``g - min(g r, 0) / (r r) r`` (A-GEM, arXiv:1812.00420): its product with ``r`` is not negative.

    A gradient whose product with the reference is not negative comes back as it is, and so it does for a reference of
    zeros. Does not wait for the device.

    Args:
        gradient: ``(D,)``.
        reference: ``(D,)`` mean gradient of earlier samples.
    """
    against = (gradient @ reference).clamp_max(0) / (reference @ reference).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient - against * reference


def project_on_references(gradient: Tensor, references: Tensor, margin: float = 0.5, ridge: float = 1e-3) -> Tensor:
    """``g + G^T v`` with ``v = argmin v (G G^T + ridge) v / 2 + v G g, v >= margin`` (GEM, arXiv:1706.08840).

    A gradient whose product with no row is negative comes back as it is. The problem has one unknown a row and is
    solved in float64 on the host, as non-negative least squares; unless ``v = margin`` solves it, for which the
    products of the rows with each other are not needed.

    Args:
        gradient: ``(D,)``.
        references: ``(t, D)`` one mean gradient for each earlier task, ``G``.
        margin: Least ``v``, at least 0; above 0 it favours earlier tasks. It holds for every row once one is violated.
        ridge: Added to the diagonal, at least 0; with 0 and ``margin=0`` the projection is the exact one.
    """
    dots = (references @ gradient).double().cpu()
    if not bool((dots < 0).any()):
        return gradient
    least = gradient + margin * references.sum(dim=0)  # the answer if no row asks for more than the margin
    if margin and bool((references @ least + ridge * margin >= 0).all()):
        return least
    gram = (references @ references.T).double().cpu()
    return gradient + dual_of(gram, dots, margin, ridge).to(gradient) @ references


def dual_of(gram: Tensor, dots: Tensor, margin: float, ridge: float) -> Tensor:
    """``(t,)`` float64 ``v = argmin v (gram + ridge) v / 2 + v dots, v >= margin``."""
    solid = max(ridge, 1e-12 * float(gram.diagonal().max()), 1e-300)  # or equal rows would be no basis
    matrix = gram + solid * torch.eye(len(gram), dtype=gram.dtype)
    lower = torch.linalg.cholesky(matrix)
    wanted = -(dots + margin * matrix.sum(dim=1))[:, None]
    above, _ = nnls(lower.T.numpy(), torch.linalg.solve_triangular(lower, wanted, upper=False).flatten().numpy())
    return margin + torch.from_numpy(above)
