"""Answers by the labels of the nearest remembered features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def neighbor_logits(features: Tensor, references: Tensor, labels: Tensor, classes: int, neighbors: int) -> Tensor:
    """Votes of the ``neighbors`` references of the highest cosine, plus a quarter of each class's highest cosine.

    The second part decides between classes of as many votes. For unit vectors the highest cosines are those of the
    smallest Euclidean distances.

    Args:
        features: ``(B, D)``.
        references: ``(n, D)``, at least one.
        labels: ``(n,)`` class ids of the references.
        classes: How many there are, ``C``.
        neighbors: ``k``, at least 1; all references where there are fewer.

    Returns:
        ``(B, C)``; -inf for classes without a reference.
    """
    cosines = F.normalize(features, dim=1) @ F.normalize(references, dim=1).T
    near = labels[cosines.topk(min(neighbors, len(labels)), dim=1).indices]
    votes = cosines.new_zeros(len(cosines), classes).scatter_add(1, near, torch.ones_like(cosines)[:, : near.shape[1]])
    best = torch.full_like(votes, -torch.inf).scatter_reduce(1, labels.expand(len(cosines), -1), cosines, "amax")
    return votes + best / 4
