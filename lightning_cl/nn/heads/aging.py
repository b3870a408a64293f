"""What SLCA does with Gaussians of classes of different age, and with the logits of their tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.heads.gaussians import Gaussians

#: What of the Gaussians of old classes is made shorter.
Shrink = Literal["means", "samples", "none"]


def age_share(tasks: Tensor, current: int) -> Tensor:
    """``(K,)`` float64 ``0.9 + 0.1 (t_c + 1) / (t + 1)``, by which SLCA shortens the means of old classes.

    Args:
        tasks: ``(K,)`` ``t_c``, the task of each class, from 0.
        current: ``t``.
    """
    return 0.9 + 0.1 * (tasks.double() + 1) / (current + 1)


def normalized_cross_entropy(logits: Tensor, targets: Tensor, tasks: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of ``z / (n temperature)`` with ``n`` the mean over the tasks of ``|z_task| + 1e-7`` (SLCA).

    Args:
        logits: ``(B, K)``.
        targets: ``(B,)`` columns.
        tasks: ``(K,)`` to which task each column belongs.
        temperature: Above 0.
    """
    members = F.one_hot(tasks.unique(return_inverse=True)[1]).to(logits.dtype)  # (K, T)
    lengths = (logits.square() @ members).clamp_min(1e-30).sqrt() + 1e-7
    return F.cross_entropy(logits / (lengths.mean(dim=1, keepdim=True) * temperature), targets)


@dataclass(frozen=True)
class AgingGaussians(Gaussians):
    """Gaussians whose draws are divided by ``1 + s * age`` with ``s`` uniform in [0.01, 0.03] for each (SLCA++).

    Attributes:
        age: ``(K,)`` tasks since that of the class.
    """

    age: Tensor

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As :meth:`Gaussians.sample`."""
        features, places = super().sample(count, generator)
        strength = 0.01 + 0.02 * torch.rand(len(places), generator=generator).to(features.device)
        return features / (1 + strength * self.age.to(features.device)[places])[:, None], places
