"""Terms that hold learned prompts near a frozen CLIP and apart from each other, and their average over epochs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def epoch_weights(epochs: int, mean: float, spread: float) -> Tensor:
    """``w_e ~ exp(-(e - mean)^2 / (2 spread^2))`` of the epochs ``e = 1..epochs``, with a sum of 1 (arXiv:2307.06948).

    Args:
        epochs: At least 1.
        mean: Epoch that weighs most.
        spread: Standard deviation in epochs, above 0; infinite: all weigh the same.

    Returns:
        ``(epochs,)`` float64; where all are far from the mean, the nearest has all the weight.
    """
    exponents = -(((torch.arange(1, epochs + 1, dtype=torch.float64) - mean) / spread) ** 2) / 2
    return exponents.softmax(dim=0)


def mean_divergence(logits: Tensor, frozen: Tensor) -> Tensor:
    """``KL(softmax frozen || softmax logits)``, summed over the samples and divided by the number of logits.

    Args:
        logits: ``(B, C)`` finite.
        frozen: As ``logits``; gets no gradient.
    """
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(frozen.detach(), dim=1)
    return F.kl_div(log_p, log_q, log_target=True, reduction="sum") / logits.numel()


def prompt_diversity(features: Tensor) -> Tensor:
    """Mean over classes and pairs of prompts of the squared cosine of their text features, in [0, 1]: 0 is diverse.

    Args:
        features: ``(M, C, D)`` of ``M`` prompts; with one prompt it is 0.
    """
    count = len(features)
    if count < 2:
        return features.sum() * 0.0
    unit = F.normalize(features, dim=-1).transpose(0, 1)  # (C, M, D)
    cosines = unit @ unit.transpose(1, 2)  # (C, M, M)
    first, second = torch.triu_indices(count, count, offset=1, device=features.device)
    return cosines[:, first, second].square().mean()


def anchor_distance(features: Tensor, anchors: Tensor) -> Tensor:
    """``1 - cos`` of the mean of a class's text features over prompts and its anchor, mean over classes, in [0, 2].

    Args:
        features: ``(M, C, D)`` of ``M`` prompts, not scaled to unit length.
        anchors: ``(C, D)``.
    """
    return 1 - F.cosine_similarity(features.mean(dim=0), anchors, dim=-1).mean()
