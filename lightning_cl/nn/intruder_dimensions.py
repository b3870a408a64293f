"""Intruder dimensions: singular directions of a weight matrix that it did not have before it was fine-tuned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Singular values count as equal, or as zero, within this share of the largest.
SAME = 1e-6


class Intruders(NamedTuple):
    """The leading singular triples of a matrix that are intruders.

    Attributes:
        left: ``(n, out)`` unit vectors.
        values: ``(n,)`` singular values.
        right: ``(n, in)`` unit vectors.
        similarity: ``(k,)`` of all leading triples, intruders or not, in [0, 1].
    """

    left: Tensor
    values: Tensor
    right: Tensor
    similarity: Tensor


def as_matrices(weight: Tensor, parts: int = 1) -> list[Tensor]:
    """Views of a weight as ``(out, in)`` matrices: a convolution's kernels flattened, fused projections taken apart.

    Args:
        weight: At least two dimensions.
        parts: Into how many equal blocks of rows it is taken apart; 3 for a fused query, key and value projection.

    Raises:
        ValueError: If the rows cannot be shared out.
    """
    matrix = weight.flatten(1)
    if len(matrix) % parts:
        raise ValueError(f"{len(matrix)} rows are no {parts} equal blocks; give a number that divides them.")
    return list(matrix.chunk(parts))


def find_intruders(before: Tensor, after: Tensor, top: int = 10, threshold: float = 0.5) -> Intruders:
    """Leading left singular vectors of ``after`` that are like none of those of ``before`` (arXiv:2410.21228).

    ``s_j = max_i |u_j . u_i|`` over all left singular vectors of ``before``; ``u_j`` is an intruder if ``s_j <
    threshold``. Vectors of equal singular values are any basis of their space, so there the length of the projection on
    the space counts; directions that ``before`` does not have at all (singular value 0) count as none of its own.

    Args:
        before: ``(out, in)``.
        after: ``(out, in)``.
        top: How many leading vectors of ``after`` are looked at; fewer where there are not so many that are not 0.
        threshold: In [0, 1].
    """
    old, old_values, _ = torch.linalg.svd(before.detach().double(), full_matrices=False)
    new, values, right = torch.linalg.svd(after.detach().double(), full_matrices=False)
    count = min(top, int((values > SAME * values[:1]).sum()))
    squares = (new[:, :count].T @ old).square()[:, old_values > SAME * old_values[:1]]  # (k, r)
    similarity = _largest_by_space(squares, old_values[old_values > SAME * old_values[:1]]).sqrt().clamp_max(1)
    chosen = (similarity < threshold).nonzero().flatten()
    return Intruders(new.T[chosen], values[chosen], right[chosen], similarity)


def _largest_by_space(squares: Tensor, values: Tensor) -> Tensor:
    """``(k,)`` largest sums of ``(k, r)`` squared cosines over the vectors of equal ``(r,)`` singular values."""
    if not len(values):
        return squares.new_zeros(len(squares))
    differs = values[:-1] - values[1:] > SAME * values[0]
    space = torch.cat([differs.new_zeros(1), differs]).cumsum(0)
    sums = squares.new_zeros(len(squares), int(space[-1]) + 1).index_add_(1, space, squares)
    return sums.amax(dim=1)


def shrunk(after: Tensor, found: Intruders, factor: float) -> Tensor:
    """``W + (factor - 1) sum_j sigma_j u_j v_j^T`` over the intruders ``j``; 1 gives ``W`` bit for bit.

    Args:
        after: ``(out, in)``.
        found: Of this matrix.
        factor: What is left of each intruder, in [0, 1].
    """
    if factor == 1 or not len(found.values):
        return after
    part = (found.left.T * found.values) @ found.right
    return (after.double() + (factor - 1) * part).to(after.dtype)


def low_rank(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best ``B A`` of a rank, with the square roots of the singular values on both sides, and what it misses.

    Args:
        delta: ``(out, in)``.
        rank: At least 1.

    Returns:
        ``(rank, in)`` ``A``, ``(out, rank)`` ``B``, and ``|delta - B A|_F / |delta|_F``, 0 where delta is 0.
    """
    left, values, right = torch.linalg.svd(delta.double(), full_matrices=False)
    root = values[:rank].sqrt()
    down = delta.new_zeros(rank, delta.shape[1], dtype=torch.float64)
    up = delta.new_zeros(delta.shape[0], rank, dtype=torch.float64)
    down[: len(root)], up[:, : len(root)] = root[:, None] * right[:rank], left[:, :rank] * root
    total = values.square().sum()
    missed = values[rank:].square().sum() / total.clamp_min(torch.finfo(total.dtype).tiny)
    return down.to(delta.dtype), up.to(delta.dtype), float(missed.sqrt())


def repaired(
    before: Tensor, after: Tensor, parts: int, top: int, threshold: float, factor: float
) -> tuple[Tensor | None, int]:
    """A weight with its intruders shrunk, ``None`` where there is nothing to change, and how many there are.

    Args:
        before: At least two dimensions.
        after: Of the same shape.
        parts: See :func:`as_matrices`.
        top: See :func:`find_intruders`.
        threshold: The same.
        factor: See :func:`shrunk`.
    """
    pairs = list(zip(as_matrices(before, parts), as_matrices(after, parts), strict=True))
    found = [find_intruders(old, new, top, threshold) for old, new in pairs]
    count = sum(len(one.values) for one in found)
    if factor == 1 or not count:
        return None, count
    new = torch.cat([shrunk(matrix, one, factor) for (_, matrix), one in zip(pairs, found, strict=True)])
    return new.view_as(after), count
