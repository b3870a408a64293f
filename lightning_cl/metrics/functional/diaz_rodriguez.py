"""The matrix metrics of Díaz-Rodríguez et al. (arXiv:1810.13166), which use whole triangles of the accuracy matrix.

They share names with GEM's metrics and give other numbers, hence the suffix ``_dr``. Continuum reports these. ``acc``
is ``(T, T)`` in [0, 1], ``acc[i, j]`` is accuracy on task ``j`` after training task ``i``, ids from 0; ``k`` counts
the finished tasks. NaN in a used cell gives NaN, as does one finished task where a pair is needed. All raise
``ValueError`` if ``acc`` is not square or ``k`` is not in ``1..T``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, finished_block


def matrix_accuracy_dr(acc: MatrixLike, k: int | None = None) -> Tensor:
    """Mean of the lower triangle with the diagonal, in [0, 1]: every task at every stage since it was learned."""
    block = finished_block(acc, k)
    return block[torch.ones_like(block).tril().bool()].mean()


def backward_transfer_dr(acc: MatrixLike, k: int | None = None) -> Tensor:
    """Mean of ``acc[i, j] - acc[j, j]`` over all ``i > j``, in [-1, 1]; negative is forgetting."""
    block = finished_block(acc, k)
    change = block - block.diagonal()  # broadcast over rows: minus acc[j, j] in column j
    return change[torch.ones_like(block).tril(-1).bool()].mean()


def remembering_dr(acc: MatrixLike, k: int | None = None) -> Tensor:
    """``1 - |min(BWT_dr, 0)|``, in [0, 1]; 1 is nothing lost on average."""
    return 1 + backward_transfer_dr(acc, k).clamp(max=0)


def positive_backward_transfer_dr(acc: MatrixLike, k: int | None = None) -> Tensor:
    """``max(BWT_dr, 0)``, in [0, 1]: what later tasks added to earlier ones."""
    return backward_transfer_dr(acc, k).clamp(min=0)


def forward_transfer_dr(acc: MatrixLike, k: int | None = None) -> Tensor:
    """Mean of the strict upper triangle, in [0, 1]: zero-shot accuracy on tasks not yet trained."""
    block = finished_block(acc, k)
    return block[torch.ones_like(block).triu(1).bool()].mean()
