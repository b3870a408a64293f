"""Linear discriminant analysis that is updated sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.nn.heads.statistics import ClassStatistics


class StreamingLDAHead(ClassStatistics):
    """Streaming linear discriminant analysis (SLDA, Hayes and Kanan, arXiv:1909.01520).

    A sample ``x`` of class ``y``, the ``(t + 1)``-th, adds ``t / (t + 1) (x - m_y)(x - m_y)^T`` to the scatter, with
    the mean ``m_y`` of the class before it; then the mean moves. The covariance ``S`` is the scatter divided by the
    number of samples, ``L = ((1 - shrinkage) S + shrinkage I)^-1``, and logits are ``x L m_c - m_c L m_c / 2``.
    The means do not depend on the order of the samples, but the covariance does; nothing depends on the batches.

    Args:
        num_classes: Rows, ``C``.
        width: Feature size, ``D``.
        shrinkage: Share of the identity, in (0, 1].
        skip_first: A class's first sample, which has no mean before it, adds nothing to the scatter. The published
            code compares it with zero.
    """

    scatter: Tensor

    def __init__(self, num_classes: int, width: int, shrinkage: float = 1e-4, skip_first: bool = True) -> None:
        super().__init__(num_classes, width)
        self.shrinkage, self.skip_first = shrinkage, skip_first
        self.register_buffer("scatter", torch.zeros(width, width, dtype=torch.float64))

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add ``(B, D)`` features of classes ``(B,)`` in their order; rows with weight 0 do not count."""
        x, y = features.detach().double(), targets.long()
        if weights is not None:
            x, y = x[weights > 0], y[weights > 0]
        earlier = (y[:, None] == y).double().tril(-1)  # (B, B): of the same class and before it in this batch
        count = self.counts[y] + earlier.sum(1)
        before = (self.sums[y] + earlier @ x) / count.clamp_min(1)[:, None]
        seen = self.counts.sum() + torch.arange(len(y), dtype=x.dtype, device=x.device)
        factor = seen / (seen + 1)
        if self.skip_first:
            factor = factor.where(count > 0, 0.0)
        self.scatter += ((x - before) * factor[:, None]).T @ (x - before)
        super().update(x, y)

    def merge_class(self, label: int, into: int) -> None:
        """Refused: the scatter is of distances to the means that the classes had.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "StreamingLDA measures each sample from the mean that its class had then, so two classes cannot be merged "
            "afterwards; go back to the version before they were learned (`--to VERSION`)."
        )

    def forget_class(self, label: int) -> None:
        """Refused: a class's samples cannot be taken out of the scatter.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "StreamingLDA has one covariance for all classes, so samples of one class cannot be taken out of it; use "
            "`PrototypeClassifier`, or go back to the version before the class was learned (`--to VERSION`)."
        )

    @property
    def pooled(self) -> Tensor:
        """``(D, D)`` float64 covariance ``S``."""
        return self.scatter / self.counts.sum().clamp_min(1)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits; -inf for classes without samples."""
        means, shrunk = self.means, (1 - self.shrinkage) * self.pooled
        shrunk.diagonal().add_(self.shrinkage)
        rows = torch.cholesky_solve(means.T, torch.linalg.cholesky(shrunk)).T  # (C, D)
        logits = features.detach().double() @ rows.T - 0.5 * (rows * means).sum(1)
        logits = logits.to(torch.promote_types(features.dtype, torch.float32))
        return logits.masked_fill(self.counts == 0, -torch.inf)

    def extra_repr(self) -> str:
        """Sizes and options."""
        classes, width = self.sums.shape
        return f"{classes} x {width}, shrinkage={self.shrinkage}, skip_first={self.skip_first}"
