"""Gradients as one vector: what they are of single samples, how alike, and the projections of A-GEM and GEM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
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


def flat_or_zero(gradients: Iterable[Tensor | None], weights: Iterable[Tensor]) -> Tensor:
    """``(D,)`` gradients of weights, one after the other; zeros where a weight has none."""
    return flat(torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True))


def give_gradients(weights: Sequence[Tensor], vector: Tensor) -> None:
    """Let the parts of a ``(D,)`` vector be the gradients of weights; the inverse of :func:`flat`."""
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    write_flat(vector, [weight.grad for weight in weights if weight.grad is not None])


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


def last_layer_gradients(features: Tensor, logits: Tensor, targets: Tensor, allowed: Tensor) -> Tensor:
    """``(B, C * (D + 1))`` gradients of each sample's cross-entropy by weights and bias of a linear head.

    Args:
        features: ``(B, D)`` what the head was given.
        logits: ``(B, C)``.
        targets: ``(B,)``.
        allowed: ``(C,)`` bool: classes that compete.
    """
    errors = logits.double().masked_fill(~allowed[: logits.shape[1]], -torch.inf).softmax(1)
    errors = errors - F.one_hot(targets, logits.shape[1])
    given = torch.cat([features.double(), features.new_ones(len(features), 1).double()], 1)
    return torch.einsum("bc,bd->bcd", errors, given).flatten(1)


def highest_cosine(gradients: Tensor, references: Tensor) -> Tensor:
    """``(B,)`` the highest cosine of each of ``(B, P)`` gradients with ``(J, P)`` others; 0 with one of zeros."""
    return (F.normalize(gradients, dim=1) @ F.normalize(references, dim=1).T).amax(1)
