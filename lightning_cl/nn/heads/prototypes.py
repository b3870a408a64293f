"""Classify by the mean feature of each class."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.heads.cosine import cosine_logits
from lightning_cl.nn.heads.statistics import ClassStatistics

Distance = Literal["euclidean", "cosine"]


class PrototypeHead(ClassStatistics):
    """One mean per class, from float64 sums and counts, so any order or split of the samples gives the same means.

    ``distance="euclidean"`` with ``normalize=True`` is the nearest-mean classifier (NMC, arXiv:2210.04428): features
    are scaled to unit length, the means are not. ``"cosine"`` with ``normalize=False`` is SimpleCIL
    (arXiv:2303.07338): the cosine between the feature and the mean of raw features.

    Args:
        num_classes: Rows, ``C``.
        width: Feature size, ``D``.
        distance: How a feature is compared with a mean.
        normalize: Scale features to unit length before they are averaged and compared.
    """

    def __init__(self, num_classes: int, width: int, distance: Distance = "euclidean", normalize: bool = True) -> None:
        super().__init__(num_classes, width)
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f'`distance` is {distance!r}; give "euclidean" or "cosine".')
        self.distance, self.normalize = distance, normalize

    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add ``(B, D)`` features of classes ``(B,)``; rows with weight 0 do not count. Deterministic on any device."""
        super().update(self._scaled(features), targets, weights)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits; -inf for classes without samples.

        Euclidean: ``u . mu_c - |mu_c|^2 / 2``, whose argmax is the nearest mean. Cosine: in [-1, 1].
        """
        means = self.means.to(features.dtype if features.dtype == torch.float64 else torch.float32)
        u = self._scaled(features).to(means.dtype)
        if self.distance == "cosine":
            logits = cosine_logits(u, means, 1.0)
        else:
            logits = u @ means.T - 0.5 * means.square().sum(1)
        return logits.masked_fill(self.counts == 0, -torch.inf)

    def _scaled(self, features: Tensor) -> Tensor:
        features = features.detach()
        features = features if features.dtype == torch.float64 else features.float()
        return F.normalize(features, dim=1) if self.normalize else features

    def extra_repr(self) -> str:
        """Sizes and options."""
        classes, width = self.sums.shape
        return f"{classes} x {width}, distance={self.distance!r}, normalize={self.normalize}"
