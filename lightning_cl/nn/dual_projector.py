"""Project maps of a frozen network by two selective scans, one for base classes, one for novel ones (Mamba-FSCIL)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.selective_scan import ScanOutput, SelectiveBlock, map_orders


class Projected(NamedTuple):
    """What the projector gives.

    Attributes:
        features: ``(B, W)``.
        novel: What the novel branch chose; ``None``: it was not asked.
    """

    features: Tensor
    novel: ScanOutput | None


class ScanBranch(nn.Module):
    """Maps to features: two linear layers at every place, a scan in four directions, and the mean over the places.

    Args:
        channels: Of the maps.
        width: Of the features.
        side: Height and width of the maps.
        states: Of each channel of the scan.
    """

    orders: Tensor

    def __init__(self, channels: int, width: int, side: int, states: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, width), nn.LayerNorm(width), nn.LeakyReLU(0.1), nn.Linear(width, width)
        )
        self.position = nn.Parameter(0.02 * torch.randn(side * side, width))
        self.block = SelectiveBlock(width, states)
        self.register_buffer("orders", map_orders(side), persistent=False)

    def forward(self, maps: Tensor) -> tuple[Tensor, ScanOutput]:
        """``(B, C, S, S)`` maps to ``(B, W)`` features, and what the scan chose."""
        tokens = self.mlp(maps.flatten(2).transpose(1, 2)) + self.position  # (B, L, W)
        scanned = self.block(tokens.to(self.position.dtype), self.orders)
        return scanned.tokens.mean(dim=1), scanned


class DualProjector(nn.Module):
    """``base(map) + identity(feature) + novel(map)``; the gate of the novel branch is closed at first.

    The weights of the novel branch are buffers, so that no optimiser of the network's and no process waits for them.

    Args:
        channels: Of maps and of features, as the network gives them.
        width: Of what is projected to; the identity is a linear layer where it is another one.
        side: Height and width of the maps.
        states: Of each channel of a scan.
    """

    def __init__(self, channels: int, width: int, side: int, states: int) -> None:
        super().__init__()
        self.base = ScanBranch(channels, width, side, states)
        self.novel = ScanBranch(channels, width, side, states)
        self.identity = nn.Identity() if width == channels else nn.Linear(channels, width)
        self.novel.block.close_gate()
        hold_as_buffers(self.novel)

    def forward(self, maps: Tensor, features: Tensor, novel: bool = True) -> Projected:
        """Project ``(B, C, S, S)`` maps and ``(B, C)`` features.

        Args:
            maps: Before they are pooled.
            features: What the network would give its head.
            novel: Ask the novel branch, too.
        """
        known = self.base(maps)[0] + self.identity(features)
        if not novel:
            return Projected(known, None)
        added, chosen = self.novel(maps)
        return Projected(known + added, chosen)


def hold_as_buffers(module: nn.Module) -> None:
    """Turn the parameters of a module into buffers of the same names; it computes as before."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())


def dot_regression(features: Tensor, rows: Tensor, weights: Tensor | None = None) -> Tensor:
    """``(1 / 2) (u . m - 1)^2`` of features at unit length and the fixed rows of their classes (arXiv:2302.03004).

    Args:
        features: ``(B, W)``, of any length.
        rows: ``(B, W)`` at unit length.
        weights: ``(B,)`` of the samples; 1 when ``None``.

    Returns:
        The mean over the samples of the weighted terms; 0 where every feature points along its row.
    """
    each = 0.5 * ((F.normalize(features, dim=1) * rows).sum(dim=1) - 1).square()
    return (each if weights is None else weights * each).mean()


def balanced_weights(targets: Tensor) -> Tensor:
    """``(B,)`` ``B / (K n_y)`` with the ``K`` classes of a batch and ``n_y`` its samples of each: classes weigh alike.

    Lengths of ``sqrt(B / (K n_y))`` of the rows, as in the code of Mamba-FSCIL, are the same.
    """
    _, places, counts = targets.unique(return_inverse=True, return_counts=True)
    weights: Tensor = len(targets) / (len(counts) * counts[places]).double()
    return weights


def suppression(gate: Tensor, base: Tensor, on_base: float, on_novel: float) -> Tensor:
    """``on_base |z_base| / n_base - on_novel |z_novel| / n_novel``: the gate stays closed for base classes (eq. 8).

    ``z`` are the gate's values before the activation, ``|z|`` the root of the sum of their squares, ``n`` how many.

    Args:
        gate: ``(B, L, E)``.
        base: ``(B,)`` bool; a group without samples has no term.
        on_base: At least 0.
        on_novel: At least 0.
    """
    total = gate.new_zeros(())
    for rows, weight in ((gate[base], on_base), (gate[~base], -on_novel)):
        if weight and rows.numel():
            total = total + weight * torch.linalg.vector_norm(rows) / rows.numel()
    return total


def separation(chosen: ScanOutput, base: Tensor) -> Tensor:
    """Sum over ``dt``, ``B`` and ``C`` of the mean of ``|I - S|``, ``S`` the cosines of their means in both groups.

    That is half of the absolute cosine between what base and what novel samples choose on average (eq. 9).

    Args:
        chosen: Of a scan.
        base: ``(B,)`` bool; 0 if a group has no samples.
    """
    total = chosen.gate.new_zeros(())
    if bool(base.all()) or not bool(base.any()):
        return total
    for values in chosen.coefficients[:3]:
        means = torch.stack([values[rows].mean(dim=(0, 1)) for rows in (base, ~base)])  # (2, D)
        cosines = F.normalize(means, dim=1) @ F.normalize(means, dim=1).T
        total = total + (torch.eye(2, dtype=cosines.dtype, device=cosines.device) - cosines).abs().mean()
    return total
