"""Classify by Mahalanobis distances to class means, with one covariance or one for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.eager import exporting
from lightning_cl.nn.heads.statistics import ClassStatistics, Covariance
from lightning_cl.nn.load_hooks import after_load


def shrunk(covariance: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    """``C + a1 mean(diagonal) I + a2 mean(off-diagonal) (1 - I)`` of ``(..., D, D)``, as FeCAM has it."""
    width = covariance.shape[-1]
    eye = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    own = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    rest = (covariance.sum((-2, -1), keepdim=True) - width * own) / max(width * (width - 1), 1)
    return covariance + diagonal * own * eye + off_diagonal * rest * (1 - eye)


def correlation(covariance: Tensor) -> Tensor:
    """``C_ij / sqrt(C_ii C_jj)`` of ``(..., D, D)``; a channel that does not vary correlates with none."""
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    outer = deviation[..., :, None] * deviation[..., None, :]
    found = torch.where(outer > 0, covariance / outer, 0.0)
    found.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return found


def precision(matrix: Tensor) -> Tensor:
    """The inverse of a symmetric ``(D, D)`` matrix; the pseudo-inverse where it is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.linalg.pinv(matrix, hermitian=True) if failed else torch.cholesky_inverse(factor)


class MahalanobisHead(ClassStatistics):
    """Logits ``-(x - m_c) R_c^-1 (x - m_c)`` (FeCAM, arXiv:2309.14062): classes may differ in their covariance.

    ``R_c`` is the correlation matrix of the shrunk covariance; of variances, those divided by their mean. The
    statistics are sums in float64, so any order, batches or split of the samples give the same logits.

    Args:
        num_classes: Rows, ``C``.
        width: Feature size, ``D``.
        covariance: ``"class"``: ``(D, D)`` for each class; ``"shared"``: one for all; ``"diagonal"``: variances.
        shrinkage: ``a1``, of the diagonal, at least 0.
        off_diagonal: ``a2``, of the rest, at least 0.
        tukey: Power that non-negative features are raised to (Tukey's transform); 1: as they are.
        normalize: Scale features to unit length before statistics are taken, as for ViTs. Otherwise statistics are of
            features as they are, and both the feature and the mean are scaled when they are compared, as for
            convolutional networks.
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        covariance: Covariance = "class",
        shrinkage: float = 1.0,
        off_diagonal: float = 0.0,
        tukey: float = 1.0,
        normalize: bool = True,
    ) -> None:
        super().__init__(num_classes, width, covariance)
        self.shrinkage, self.off_diagonal, self.tukey, self.normalize = shrinkage, off_diagonal, tukey, normalize
        self._inverse: dict[int, Tensor] = {}  # by class; under -1 that of all
        self._made_at: list[float] = []  # the counts that the inverses were made with
        after_load(self, "_forget_inverses")

    def _forget_inverses(self) -> None:
        self._inverse, self._made_at = {}, []

    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add ``(B, D)`` features of classes ``(B,)``; rows with weight 0 do not count."""
        super().update(self._transformed(features), targets, weights)

    def _transformed(self, features: Tensor) -> Tensor:
        x = features.detach().double()
        if self.tukey != 1:
            x = x.clamp_min(0).pow(self.tukey)
        return F.normalize(x, dim=1) if self.normalize else x

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits, at most 0; -inf for classes without samples."""
        self._refresh()
        x, means = self._transformed(features), self.means
        if not self.normalize:
            x, means = F.normalize(x, dim=1), F.normalize(means, dim=1)
        logits = x.new_full((x.shape[0], len(means)), -torch.inf)  # `len` would fix it in a graph
        for label in (label for label, n in enumerate(self._made_at) if n):
            away, inverse = x - means[label], self._inverse[-1 if self.kind == "shared" else label].to(x.device)
            turned = away * inverse if inverse.ndim == 1 else away @ inverse
            logits[:, label] = -(turned * away).sum(1)
        return logits.to(torch.promote_types(features.dtype, torch.float32))

    @torch.no_grad()
    def _refresh(self) -> None:
        """Invert what has changed since the last time; a graph is made of what was inverted by the last answer."""
        if exporting() and self._made_at:
            return
        counts = self.counts.tolist()
        if counts == self._made_at:
            return
        before = self._made_at or [0.0] * len(counts)
        seen = [label for label, n in enumerate(counts) if n]
        if self.kind == "shared":
            self._inverse = {-1: self._inverted(self.covariance())}
        else:
            # A class of one sample has the mean covariance of the others, which may have changed.
            stale = [label for label in seen if counts[label] != before[label] or counts[label] == 1]
            self._inverse |= {label: self._inverted(self._covariance_of(label, seen)) for label in stale}
        self._made_at = counts

    def _covariance_of(self, label: int, seen: Sequence[int]) -> Tensor:
        classes = seen if self.counts[label] == 1 else [label]
        return self.covariance(classes)[list(classes).index(label)]

    def _inverted(self, covariance: Tensor) -> Tensor:
        """``(D, D)``, or ``(D,)`` of variances."""
        if covariance.ndim == 2:
            return precision(correlation(shrunk(covariance, self.shrinkage, self.off_diagonal)))
        variance = covariance.clamp_min(0) + self.shrinkage * covariance.mean()
        return variance.mean() / variance if bool((variance > 0).all()) else torch.ones_like(variance)

    def extra_repr(self) -> str:
        """Sizes and options."""
        return f"{super().extra_repr()}, shrinkage={self.shrinkage}, tukey={self.tukey}, normalize={self.normalize}"
