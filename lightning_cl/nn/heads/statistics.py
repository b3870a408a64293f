"""Counts, means and covariances of classes, summed in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.heads.gaussians import Gaussians

#: One matrix for all classes or for each class, variances of each class, or nothing but means.
Covariance = Literal["none", "diagonal", "shared", "class"]


class ClassStatistics(nn.Module):
    """Sums over the samples of each class: any order, batches or split over processes give the same statistics.

    Args:
        num_classes: Rows, ``C``.
        width: Feature size, ``D``.
        covariance: ``"none"`` keeps means only; ``"diagonal"`` one variance for each class and channel, ``"shared"``
            the pooled ``(D, D)`` covariance within classes, ``"class"`` one ``(D, D)`` for each class.

    Raises:
        ValueError: If ``covariance`` is none of these.
    """

    sums: Tensor
    counts: Tensor
    products: Tensor
    growing: tuple[str, ...] = ("sums", "counts")

    def __init__(self, num_classes: int, width: int, covariance: Covariance = "none") -> None:
        super().__init__()
        shapes = {"diagonal": (num_classes, width), "shared": (width, width), "class": (num_classes, width, width)}
        if covariance not in ("none", *shapes):
            raise ValueError(f'`covariance` is {covariance!r}; give "none", "diagonal", "shared" or "class".')
        self.kind: Covariance = covariance
        self.register_buffer("sums", torch.zeros(num_classes, width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.float64))
        if covariance != "none":
            self.register_buffer("products", torch.zeros(shapes[covariance], dtype=torch.float64))
        if covariance in ("diagonal", "class"):
            self.growing = (*self.growing, "products")

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add ``(B, D)`` features of classes ``(B,)``; rows with weight 0 do not count. Deterministic on any device."""
        features = features.double()
        targets = targets.long()
        members = F.one_hot(targets, len(self.counts)).double()  # (B, C)
        if weights is not None:
            members = members * weights.double()[:, None]
        self.sums += members.T @ features
        self.counts += members.sum(0)
        if self.kind == "diagonal":
            self.products += members.T @ features.square()
        elif self.kind == "shared":
            self.products += (features * members.sum(1, keepdim=True)).T @ features
        elif self.kind == "class":
            for label in targets.unique().tolist():
                rows = targets == label
                self.products[label] += (features[rows] * members[rows, label, None]).T @ features[rows]

    def reset(self) -> None:
        """Forget all samples."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def merge_class(self, label: int, into: int) -> None:
        """Count all samples of a class as samples of another; exact."""
        per_class = [self.sums, self.counts, *([self.products] if self.kind in ("diagonal", "class") else [])]
        for sums in per_class:
            sums[into] += sums[label]
            sums[label] = 0

    @torch.no_grad()
    def forget_class(self, label: int) -> None:
        """Forget all samples of a class, as if they had never come.

        Raises:
            ValueError: If a covariance is shared, from which they cannot be taken out.
        """
        if self.kind == "shared":
            raise ValueError(
                "the covariance is one for all classes, so samples of one class cannot be taken out of it; use "
                '`PrototypeClassifier` or `FeCAM(covariance="diagonal")`, which keep statistics of each class, or go '
                "back to the version before the class was learned (`--to VERSION`)."
            )
        for sums in self.buffers():
            sums[label] = 0

    @property
    def means(self) -> Tensor:
        """``(C, D)`` float64 means; zero for a class without samples."""
        return self.sums / self.counts.clamp_min(1)[:, None]

    def covariance(self, classes: Sequence[int] | None = None) -> Tensor:
        """Unbiased covariance in float64: ``(D, D)`` shared, ``(K, D, D)`` of each class, or ``(K, D)`` variances.

        A class of one sample has the mean of those of the asked classes that have more; 0 where there are none. The
        shared one is within all classes: ``sum_c sum_i (x_i - m_c)(x_i - m_c)^T / (N - C_seen)``.

        Args:
            classes: ``K`` labels; ``None``: all.

        Raises:
            ValueError: If only means are kept.
        """
        if self.kind == "none":
            raise ValueError('only class means are kept; build the statistics with `covariance="shared"` or "class".')
        if self.kind == "shared":
            free = (self.counts.sum() - (self.counts > 0).sum()).clamp_min(1)
            return (self.products - self.sums.T @ self.means) / free
        rows = self._rows(range(len(self.counts)) if classes is None else classes)
        means, shape = self.means[rows], (-1,) + (1,) * (self.products.ndim - 1)
        counts = self.counts[rows].view(shape)
        square = means.square() if self.kind == "diagonal" else means[:, :, None] * means[:, None, :]
        found = (self.products[rows] - counts * square) / (counts - 1).clamp_min(1)
        mean = found.where(counts > 1, 0.0).sum(0) / (counts > 1).sum().clamp_min(1)
        return torch.where(counts > 1, found, mean)

    def gaussians(self, classes: Sequence[int], jitter: float = 1e-4) -> Gaussians:
        """A Gaussian of each of these classes, to draw features from (SLCA, arXiv:2303.05118).

        Args:
            classes: Labels; each must have samples.
            jitter: Added to the variances, so that a covariance of few samples has a Cholesky factor.

        Raises:
            ValueError: If a class has no samples, or a covariance is not positive definite.
        """
        rows = self._rows(classes)
        empty = [label for label, n in zip(classes, self.counts[rows].tolist(), strict=True) if n == 0]
        if empty:
            raise ValueError(f"the classes {empty} have no samples yet, so they have no Gaussian; leave them out.")
        covariance = self.covariance(classes)
        own = covariance[None] if self.kind == "shared" else covariance
        return Gaussians.fit(tuple(classes), self.means[rows], own, jitter)

    def _rows(self, classes: Sequence[int]) -> Tensor:
        return torch.tensor(list(classes), dtype=torch.long, device=self.counts.device)

    def extra_repr(self) -> str:
        """Sizes and options."""
        return f"{self.sums.shape[0]} x {self.sums.shape[1]}, covariance={self.kind!r}"
