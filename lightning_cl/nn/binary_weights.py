"""Layers of binary weights in the space of their fields, whose posterior after a task is the prior of the next."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Answer = Literal["mean", "sign"]


def field_kl(fields: Tensor, prior: Tensor) -> Tensor:
    """``KL(q_theta || q_prior)`` in nats of binary weights, summed over all of them.

    ``q_theta(w) = e^(theta w) / (2 cosh theta)`` on ``w = -1, 1``: ``sum (theta - theta') tanh theta - ln 2cosh theta +
    ln 2cosh theta'``. To second order it is ``sum (1 - tanh^2 theta) (theta - theta')^2 / 2``: elastic weights whose
    stiffness is the variance of a weight.

    Args:
        fields: ``theta``, any shape.
        prior: ``theta'``, of the same shape.
    """
    return ((fields - prior) * fields.tanh() - _log_2cosh(fields) + _log_2cosh(prior)).sum()


def _log_2cosh(fields: Tensor) -> Tensor:
    return torch.logaddexp(fields, -fields)


def metaplastic(step: Tensor, fields: Tensor, strength: float) -> Tensor:
    """A step of fields in which what lowers ``|theta|`` is multiplied by ``1 - tanh^2(strength theta)``.

    The rule of binarised networks with hidden weights (arXiv:2003.03533), which the field space is compared with.

    Args:
        step: What would be added to the fields.
        fields: ``theta``, of the same shape.
        strength: At least 0; with 0 the step stays as it is.
    """
    lowers = step * fields < 0
    return torch.where(lowers, step * (1 - (strength * fields).tanh().square()), step)


class BinaryLinear(nn.Module):
    """A linear layer of weights -1 and 1 that are known by their fields only, in the style of arXiv:2212.02846.

    A weight is 1 with probability ``(1 + m) / 2``, ``m = tanh theta``. In training mode the outputs are drawn (by the
    central limit theorem, as in local reparametrisation) with the mean ``sum_i m_i x_i / sqrt(N)`` and the variance
    ``sum_i (1 - m_i^2) x_i^2 / N``; in eval mode they are those of the mean weights or of the likeliest ones. There is
    no bias. Reconstructed from the abstract of the paper; not a reproduction.

    Args:
        in_features: ``N``.
        out_features: ``M``.
        scale: Standard deviation of the first fields, above 0.
        answer: Weights of eval mode: ``"mean"``, ``m``, or ``"sign"``, -1 and 1.
    """

    prior: Tensor

    def __init__(self, in_features: int, out_features: int, scale: float = 0.1, answer: Answer = "mean") -> None:
        super().__init__()
        self.answer = answer
        self.fields = nn.Parameter(scale * torch.randn(out_features, in_features))
        self.register_buffer("prior", torch.zeros(out_features, in_features))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., N)`` to ``(..., M)``."""
        size = math.sqrt(self.fields.shape[1])
        if not self.training and self.answer == "sign":
            return F.linear(x, torch.where(self.fields < 0, -1.0, 1.0).to(x)) / size
        means = self.fields.tanh()
        mean = F.linear(x, means) / size
        if not self.training:
            return mean
        variance = F.linear(x.square(), 1 - means.square()) / size**2
        return mean + (variance + 1e-12).sqrt() * torch.randn_like(mean)

    def divergence(self) -> Tensor:
        """KL of the weights' distribution to the one before the task, in nats; ``1 / n`` of it joins the mean loss."""
        return field_kl(self.fields, self.prior)

    @torch.no_grad()
    def consolidate(self) -> None:
        """Make what is known now the prior of what comes."""
        self.prior.copy_(self.fields)
