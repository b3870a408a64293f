"""What MVP (arXiv:2308.09303) adds to cross-entropy, as pure functions.

The contrastive loss of the prompt keys, the scaling of features, and the focal weight by similarity of gradients.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.distributed import all_sum

#: Every sample by its own temperature (the paper), or by that of every other sample too (the public code).
CVPTReduction = Literal["sample", "broadcast"]
#: Every sample by its own weight (the paper), or the batch's mean loss by the mean weight (the public code).
GSFReduction = Literal["sample", "batch"]


def contrastive_key_loss(distance: Tensor, key_distance: Tensor, temperature: Tensor, ids: Tensor) -> Tensor:
    """Pulls queries to the keys that they selected and pushes keys apart (MVP's contrastive visual prompt tuning).

    ``-mean_b log(R_b / (A_b + R_b))`` with ``A_b = exp(distance(q_b, k_s) / tau_s)`` and
    ``R_b = mean_p exp(distance(k_s, k_p) / tau_s)`` of the selected key ``s = ids[b]``.

    Args:
        distance: ``(B, P)`` distances ``1 - cos`` of queries and keys, in [0, 2].
        key_distance: ``(P, P)`` distances among the keys.
        temperature: ``(P,)`` at least 1; the loss tends to ``log 2`` as it grows.
        ids: ``(B,)`` selected keys.

    Returns:
        A scalar.
    """
    push = (key_distance / temperature[:, None]).exp().mean(dim=1)[ids]
    pull = (distance.gather(1, ids[:, None]).squeeze(1) / temperature[ids]).exp()
    return torch.log1p(pull / push).mean()


def broadcast_key_loss(
    distance: Tensor, key_distance: Tensor, temperature: Tensor, ids: Tensor, counts: Tensor, counted: bool = True
) -> Tensor:
    """:func:`contrastive_key_loss` as the public code has it: every distance over every sample's temperature.

    ``-log(R / (A + R) + 1e-6)``, with ``A`` and ``R`` averaged over all pairs of samples of the global batch. The value
    is the same on all processes; its gradients are such that their mean over the processes is that of one process.

    Args:
        distance: ``(B, P)`` distances of queries and keys.
        key_distance: ``(P, P)`` distances among the keys.
        temperature: ``(P,)`` at least 1.
        ids: ``(B,)`` selected keys.
        counts: ``(P,)`` how many samples of the global batch selected each key.
        counted: Whether this process's samples are among them.
    """
    total = counts.sum()
    share = counts.to(distance.dtype) / total
    push = (key_distance / temperature[:, None, None]).exp().mean(dim=2) * share  # (P, P) of temperature and key
    push = (push.sum(dim=1) * share).sum()
    own = ((distance.gather(1, ids[:, None]) / temperature).exp() * share).sum()  # over this process's samples
    everywhere = all_sum(own.detach() if counted else torch.zeros_like(own)) / total
    own = own / len(ids)
    pull = own + (everywhere - own).detach()  # the global value with this process's gradient
    return -(push / (pull + push) + 1e-6).log()


def fit_scale(features: Tensor, rows: Tensor, margin: float) -> Tensor:
    """By how much adaptive feature scaling divides a feature: ``1 - cos(f, W_y) + margin``.

    Large for a badly fitted (minor) class: the smaller feature keeps its loss high.

    Args:
        features: ``(B, D)`` what reaches the head.
        rows: ``(B, D)`` rows of the head of the samples' classes.
        margin: The smallest divisor.

    Returns:
        ``(B,)`` in [margin, margin + 2].
    """
    return 1 - F.cosine_similarity(features, rows, dim=1).clamp(-1, 1) + margin


def scale_logits(logits: Tensor, bias: Tensor | None, scale: Tensor) -> Tensor:
    """``W (f / c) + b`` from ``(B, C)`` logits ``W f + b`` and ``(B,)`` divisors ``c``, without another product."""
    if bias is None:
        return logits / scale[:, None]
    return (logits - bias) / scale[:, None] + bias


def gradient_conflict(features: Tensor, residual: Tensor, targets: Tensor, counted: bool = True) -> Tensor:
    """How far the gradient of each sample's loss for its class's row is from the batch's: ``1 - cos``.

    The gradient of sample ``i`` is ``residual[i, y_i] f_i``, the batch's for row ``c`` is the mean of
    ``residual[:, c] f``, over the samples of all processes.

    Args:
        features: ``(B, D)`` what reaches the head.
        residual: ``(B, C)`` derivatives of the samples' losses with respect to the head's output; not positive in the
            column of the sample's class.
        targets: ``(B,)`` classes.
        counted: Whether this process's samples are part of the global batch.

    Returns:
        ``(B,)`` in [0, 2]; 1 for a sample without gradient.
    """
    with torch.autocast(features.device.type, enabled=False):
        batch = all_sum(residual.T @ features if counted else features.new_zeros(residual.shape[1], features.shape[1]))
    own = residual.gather(1, targets[:, None]).squeeze(1).sign()
    # Cosines do not see the length, so neither the mean's divisor nor the residual's size is needed.
    rows = F.normalize(batch, dim=1, eps=torch.finfo(batch.dtype).tiny)[targets]
    cosine = (F.normalize(features, dim=1) * rows).sum(dim=1)
    return (1 - own * cosine).clamp(0, 2)


def focal_weight(
    conflict: Tensor, alpha: float, gamma: float, reduction: GSFReduction = "sample", counted: bool = True
) -> Tensor:
    """Weight of each sample's loss: ``1 - alpha + alpha * conflict ** gamma``.

    Args:
        conflict: ``(B,)``, see :func:`gradient_conflict`.
        alpha: Share of the focal part, in [0, 1]; 0: all weights are 1.
        gamma: Exponent, not negative.
        reduction: ``"batch"`` gives every sample the mean weight of the global batch.
        counted: Whether this process's samples are part of the global batch.

    Returns:
        ``(B,)`` in [1 - alpha, 1 - alpha + alpha * 2 ** gamma].
    """
    weight: Tensor = 1 - alpha + alpha * conflict**gamma
    if reduction == "sample":
        return weight
    sums = torch.stack([weight.sum(), torch.full_like(weight.sum(), len(weight))])
    sums = all_sum(sums if counted else torch.zeros_like(sums))
    return (sums[0] / sums[1]).expand_as(weight)
