"""Relations of samples and texts to class prototypes, and how they are taught by several teachers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_relations(images: Tensor, prototypes: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """``(2, B, C)`` log-probabilities of each image over image prototypes, and over class texts.

    Args:
        images: ``(B, D)`` unit features.
        prototypes: ``(C, D)`` unit image prototypes.
        texts: ``(C, D)`` unit text features.
        temperature: Above 0.
    """
    rows = torch.stack([images @ prototypes.T, images @ texts.T])
    return F.log_softmax(rows / temperature, dim=-1)


def text_relations(texts: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """``(C, C)`` log-probabilities of each class text over image prototypes; see :func:`sample_relations`."""
    return F.log_softmax(texts @ prototypes.T / temperature, dim=-1)


def teacher_weights(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """``(K, B)`` weights of ``K`` teachers for each sample, with a sum of 1: the surer one counts for more.

    ``softmax_k(max_c p_k(c) / temperature)``.

    Args:
        logits: Of each teacher ``(B, C)``.
        temperature: Above 0; infinite: all count alike.
    """
    surest = torch.stack([rows.softmax(dim=1).amax(dim=1) for rows in logits])
    return (surest / temperature).softmax(dim=0)


def log_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``(...)`` ``KL(teacher || student)`` of ``(..., C)`` log-probabilities; the teacher gets no gradient."""
    return F.kl_div(student, teacher.detach(), log_target=True, reduction="none").sum(dim=-1)


def relations(features: Tensor, prototypes: Tensor) -> Tensor:
    """``(B, C)`` products of ``(B, D)`` features as they are and ``(C, D)`` prototypes of unit length."""
    return features @ F.normalize(prototypes, dim=1).T


def prototype_alignment(
    images: Tensor, texts: Tensor, prototypes: Tensor, targets: Tensor, columns: Tensor, scale: float
) -> Tensor:
    """Cross-entropy of images with the prototypes of their class, and of prototypes with their texts; a scalar.

    Args:
        images: ``(B, D)`` unit features; those of other classes than the given ones count as 0.
        texts: ``(C, D)`` unit text features.
        prototypes: ``(C, D)`` unit image prototypes.
        targets: ``(B,)`` class ids.
        columns: ``(C,)`` ascending ids of the classes.
        scale: Of the cosines.
    """
    inside = torch.isin(targets, columns)
    places = torch.searchsorted(columns, targets).clamp_max(len(columns) - 1)
    of_images = F.cross_entropy(scale * images @ prototypes.T, places, reduction="none")
    own = torch.arange(len(columns), device=columns.device)
    return (of_images * inside).mean() + F.cross_entropy(scale * prototypes @ texts.T, own)


@torch.no_grad()
def follow_means(prototypes: Tensor, known: Tensor, sums: Tensor, counts: Tensor, decay: float) -> None:
    """Move the prototypes of the classes of a batch to the mean of their features; a new class begins there.

    Args:
        prototypes: ``(C, D)``, changed in place.
        known: ``(C,)`` bool: classes that have one; changed in place.
        sums: ``(C, D)`` of the batch's features.
        counts: ``(C, 1)`` of its samples.
        decay: How much of a prototype stays, in [0, 1].
    """
    means, here = (sums / counts.clamp_min(1)).to(prototypes), (counts > 0).flatten()
    moved = torch.where(known[:, None], torch.lerp(means, prototypes, decay), means)
    prototypes.copy_(torch.where(here[:, None], moved, prototypes))
    known.logical_or_(here)
