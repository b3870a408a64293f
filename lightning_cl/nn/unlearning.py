"""Losses that make a model forget some of its samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def negative_preference(current: Tensor, reference: Tensor, beta: float) -> Tensor:
    """``-(2 / beta) log sigmoid(beta (L - L_ref))`` of losses to be raised (NPO, arXiv:2404.05868).

    It falls to 0 as the loss rises above that of the reference, and its gradient with it: bounded, unlike ascent. At
    the reference the gradient is -1.

    Args:
        current: Losses of the present model, any shape: one a sample, or the mean of a batch.
        reference: Losses of the model before unlearning; gets no gradient.
        beta: Above 0; for 0 it becomes gradient ascent.
    """
    return -2 / beta * F.logsigmoid(beta * (current - reference.detach()))


def refusal(logits: Tensor, allowed: Tensor) -> Tensor:
    """``(B,)`` cross-entropy with the answer that all allowed classes are as likely: a classifier's "I do not know".

    Args:
        logits: ``(B, C)``.
        allowed: ``(C,)`` bool, at least one.
    """
    return -F.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=1)[:, allowed].mean(dim=1)


@torch.no_grad()
def unlearn_(
    weight: Tensor, gradient: Tensor, fisher: Tensor, normal: Tensor, delta: float, noise: float, damping: float
) -> None:
    """Move a weight up its loss in place, by ``delta`` times its own norm, less where the Fisher information is large.

    Args:
        weight: Any shape; ``gradient``, ``fisher`` and ``normal`` have it, too.
        gradient: Of the loss; for zeros only noise is left.
        fisher: Not negative.
        normal: Standard normal noise.
        delta: Relative length, at least 0.
        noise: Standard deviation of the noise before ``delta``.
        damping: What the Fisher information is multiplied by.
    """
    up = gradient * (weight.norm() / gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny))
    weight.add_((up + noise * normal) / (1 + damping * fisher), alpha=delta)
