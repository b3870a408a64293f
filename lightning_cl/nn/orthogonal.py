"""Orthonormal rows next to given ones, and the penalty for rows that are not orthonormal."""

from __future__ import annotations

import torch
from torch import Tensor


def orthonormal_rows(old: Tensor, count: int) -> Tensor:
    """``(count, D)`` random unit rows, orthogonal to one another and to all rows of ``old``.

    Gaussian draws from the global generator are projected off an orthonormal basis of the old rows, twice, and then
    orthonormalised; all in float64. Rows for which no direction is left (more rows than ``D``) are random unit rows.

    Args:
        old: ``(M, D)`` rows; need not be orthonormal themselves. ``M`` may be 0.
        count: Number of new rows.

    Returns:
        ``(count, D)`` in the dtype and on the device of ``old``.
    """
    width = old.shape[1]
    draws = torch.randn(count, width, dtype=torch.float64)
    basis = _basis(old.detach().double().cpu())
    free = max(min(width - basis.shape[1], count), 0)
    residual = draws[:free].T
    for _ in range(2):  # the second time removes what rounding left
        residual = residual - basis @ (basis.T @ residual)
    q: Tensor = torch.linalg.qr(residual).Q
    rest = torch.nn.functional.normalize(draws[free:], dim=1)
    return torch.cat([q.T, rest]).to(old)


def _basis(rows: Tensor) -> Tensor:
    """``(D, rank)`` orthonormal basis of the span of ``(M, D)`` rows."""
    if len(rows) == 0:
        return rows.new_zeros(rows.shape[1], 0)
    directions, scale, _ = torch.linalg.svd(rows.T, full_matrices=False)  # not QR: rows may be dependent, or zero
    basis: Tensor = directions[:, scale > 1e-10 * scale.max()]
    return basis


def gram_schmidt_rows(old: Tensor, count: int) -> Tensor:
    """The released recipe of CODA-Prompt: subtract the raw draw's projections one by one, then scale to unit norm.

    Only approximately orthogonal once trained old rows are no longer so; for reproduction. Arguments as
    :func:`orthonormal_rows`.
    """
    rows = [row for row in old.detach().double().cpu()]
    new: list[Tensor] = []
    for _ in range(count):
        draw = torch.randn(old.shape[1], dtype=torch.float64)
        row = draw.clone()
        for known in [*rows, *new]:
            row = row - (draw @ known) / (known @ known).clamp_min(1e-12) * known
        new.append(row)
    return torch.stack([row / row.norm() for row in new]).to(old)


def orthogonality_penalty(new: Tensor, old: Tensor | None = None) -> Tensor:
    """Mean over the ``m x m`` entries of ``(Z Z^T - I)^2`` with ``Z = [old; new]`` (CODA-Prompt, arXiv:2211.13218).

    Args:
        new: ``(..., n, D)`` rows that get a gradient.
        old: ``(..., o, D)`` rows that get none.

    Returns:
        ``(...)``, at least 0; 0 for orthonormal rows, ``1 / m`` for all-zero rows.
    """
    eye = torch.eye(new.shape[-2], dtype=new.dtype, device=new.device)
    total = (new @ new.mT - eye).square().sum(dim=(-2, -1))
    count = new.shape[-2]
    if old is not None and old.shape[-2]:
        old = old.detach()
        count += old.shape[-2]
        total = total + 2 * (new @ old.mT).square().sum(dim=(-2, -1))
        old_eye = torch.eye(old.shape[-2], dtype=old.dtype, device=old.device)
        total = total + (old @ old.mT - old_eye).square().sum(dim=(-2, -1))
    return total / count**2
