"""A linear selector that says which expert a sample is for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.heads.fit import fit_head


def select(features: Tensor, selector: Tensor, scaling: Tensor) -> Tensor:
    """``(B,)`` numbers of the experts that a linear selector chooses.

    Args:
        features: ``(B, D)``.
        selector: ``(E, D + 1)``, the last column being the bias.
        scaling: ``(2, D)`` mean and standard deviation of features.
    """
    scaled = (features.to(scaling) - scaling[0]) / scaling[1]
    return F.linear(scaled, selector[:, :-1], selector[:, -1]).argmax(dim=1)


def fit_selector(features: Tensor, experts: Tensor, count: int, epochs: int, lr: float) -> tuple[Tensor, Tensor]:
    """A linear selector by cross-entropy and Adam, and the scaling of its inputs; see :func:`select`.

    Args:
        features: ``(N, D)`` of remembered samples.
        experts: ``(N,)`` which learned each of them, from 0.
        count: Number of experts.
        epochs: Passes over the samples.
        lr: Of Adam.
    """
    scaling = torch.stack([features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)])
    head = torch.nn.utils.skip_init(torch.nn.Linear, features.shape[1], count, device=features.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer, generator = torch.optim.Adam(head.parameters(), lr=lr), torch.Generator().manual_seed(0)
    inputs = (features - scaling[0]) / scaling[1]
    fit_head(head.forward, (inputs, experts), optimizer, generator, epochs=epochs, batch_size=64)
    return torch.cat([head.weight.detach(), head.bias.detach()[:, None]], dim=1), scaling
