"""A ridge classifier from sums over the samples: the same after any order, batches or split over processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.heads.cosine import cosine_logits
from lightning_cl.nn.load_hooks import after_load


def ridge_solution(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """``(G + ridge I)^-1 Q`` by Cholesky, for ``(M, M)`` ``G`` and ``(M, C)`` ``Q``; in their dtype.

    Raises:
        ValueError: If ``G + ridge I`` is not positive definite.
    """
    shifted = gram.clone()
    shifted.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if failed.any():
        raise ValueError(
            f"the Gram matrix is not positive definite with the ridge {ridge}: there are fewer samples than its "
            f"{len(gram)} columns, or columns that depend on each other; give a larger ridge."
        )
    return torch.cholesky_solve(cross, factor)


class GramHead(nn.Module):
    """Ridge regression on one-hot labels (ACIL, arXiv:2205.14922; RanPAC, arXiv:2307.02251): nothing is forgotten.

    ``h = relu(f P)``, ``G = sum h^T h``, ``Q = sum h^T y`` in float64; logits ``h (G + ridge I)^-1 Q``. It is solved
    when logits are asked for and samples came since. The ridge is part of the state.

    Args:
        width: Feature size, ``D``.
        num_classes: Columns, ``C``.
        ridge: Strength of the regularisation, at least 0; compare with the mean of the diagonal of ``G``.
        projection: ``(D, M)`` random and fixed; ``None``: ``h = f``. Normal for RanPAC, uniform for ACIL.
        cosine: Logits are cosines of ``h`` and the columns of the solution.
    """

    gram: Tensor
    cross: Tensor
    counts: Tensor
    strength: Tensor
    projection: Tensor | None
    growing: tuple[str, ...] = ("cross", "counts")

    def __init__(
        self, width: int, num_classes: int, ridge: float, projection: Tensor | None = None, cosine: bool = False
    ) -> None:
        super().__init__()
        size = width if projection is None else projection.shape[1]
        self.ridge, self.cosine = float(ridge), cosine
        self.register_buffer("projection", projection)
        self.register_buffer("gram", torch.zeros(size, size, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(size, num_classes, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("strength", torch.tensor(self.ridge, dtype=torch.float64))
        self._solution: Tensor | None = None
        after_load(self, "_read_ridge")

    def _read_ridge(self) -> None:
        self.ridge, self._solution = float(self.strength), None

    def hidden(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, M)`` float64 regressors; float32 would round by the size of the batch."""
        h = features.detach().double()
        return h if self.projection is None else (h @ self.projection.double()).relu()

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add ``(B, D)`` features of classes ``(B,)``; rows with weight 0 do not count."""
        h = self.hidden(features)
        labels = F.one_hot(targets.long(), len(self.counts)).double()  # (B, C)
        if weights is not None:
            labels = labels * weights.double()[:, None]
        self.gram.addmm_((h * labels.sum(1, keepdim=True)).T, h)  # in place: another such matrix may not fit
        self.cross.addmm_(h.T, labels)
        self.counts += labels.sum(0)
        self._solution = None

    @torch.no_grad()
    def merge_class(self, label: int, into: int) -> None:
        """Count all samples of a class as samples of another; exact."""
        self.cross[:, into] += self.cross[:, label]
        self.counts[into] += self.counts[label]
        self.cross[:, label], self.counts[label] = 0, 0
        self._solution = None

    @property
    def solution(self) -> Tensor:
        """``(M, C)`` float64 weights.

        Raises:
            ValueError: If the ridge is too small for the samples so far.
        """
        if self._solution is None or self._solution.device != self.gram.device:
            self._solution = ridge_solution(self.gram, self.cross, self.ridge)
        return self._solution

    def set_ridge(self, ridge: float) -> None:
        """Use another strength from now on."""
        self.ridge, self._solution = float(ridge), None
        self.strength.fill_(ridge)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits; -inf for classes without samples. Carries no gradient."""
        h, columns = self.hidden(features), self.solution
        logits = cosine_logits(h, columns.T, 1.0) if self.cosine else h @ columns
        logits = logits.to(torch.promote_types(features.dtype, torch.float32))
        return logits.masked_fill(self.counts == 0, -torch.inf)

    def extra_repr(self) -> str:
        """Sizes and options."""
        return f"{self.cross.shape[0]} x {self.cross.shape[1]}, ridge={self.ridge}"
