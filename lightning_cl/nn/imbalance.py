"""Remedies for classes of very unlike numbers of samples: margins, priors, and weights."""

from __future__ import annotations

import torch
from torch import Tensor


def ldam_margins(counts: Tensor, largest: float = 0.5) -> Tensor:
    """Margins ``n_c^(-1/4)``, scaled so that the rarest class has the largest one (LDAM, arXiv:1906.07413).

    Args:
        counts: ``(C,)`` samples of each class; a class without any has no margin.
        largest: Above 0.

    Returns:
        ``(C,)`` float64.
    """
    roots = counts.double().clamp_min(1) ** -0.25
    roots = roots.masked_fill(counts == 0, 0.0)
    return largest * roots / roots.max()


def log_priors(counts: Tensor) -> Tensor:
    """``(C,)`` ``log(n_c / sum n)``, added to logits in training (balanced softmax, arXiv:2007.10740), float64.

    A class without samples, which cannot be trained, has 0.
    """
    return (counts.double() / counts.sum()).log().masked_fill(counts == 0, 0.0)


def inverse_weights(counts: Tensor) -> Tensor:
    """``(C,)`` weights ``(1 / n_c)``, whose mean over the classes with samples is 1, float64; 0 for the others."""
    inverse = (1 / counts.double()).masked_fill(counts == 0, 0.0)
    return inverse / inverse.sum() * (counts > 0).sum()


def with_margins(cosines: Tensor, targets: Tensor, margins: Tensor) -> Tensor:
    """Cosines, those of the targets less the margin of their class.

    Args:
        cosines: ``(B, C)``.
        targets: ``(B,)``.
        margins: ``(C,)``.
    """
    own = torch.nn.functional.one_hot(targets, cosines.shape[1]).to(cosines.dtype)
    return cosines - own * margins.to(cosines.dtype)
