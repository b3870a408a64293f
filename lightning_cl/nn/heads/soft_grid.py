"""Sparse codes of features by soft binning on random planes, and a ridge classifier on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_cl.nn.heads.gram import GramHead


class SparseCode(NamedTuple):
    """What of a code is not zero.

    Attributes:
        nodes: ``(B, 4 G)`` int64 places in the code, four corners of a cell for each grid.
        weights: ``(B, 4 G)`` float64, at least 0; those of a grid have the sum 1.
    """

    nodes: Tensor
    weights: Tensor


class SoftGrid(nn.Module):
    """Puts features on ``G`` random planes, each with a grid, and shares a point out to the corners of its cell.

    ``z = sigmoid(x P)`` in [0, 1], with a fixed normal ``P``; two coordinates are a plane, on which the point weighs
    the four nodes around it bilinearly. Near inputs share nodes, far ones few, so that what is learned of one leaves
    the others alone (the encoding of Losse-FTL, arXiv:2401.13034, as it is described).

    Args:
        width: Feature size, ``D``.
        grids: Planes, ``G``, at least 1.
        bins: Cells along an edge, ``b``, at least 1; the code has ``G (b + 1)^2`` numbers.
        seed: Of ``P``, whose columns have the length 1 on average.
        hard: All weight goes to the corner of the cell with the lowest coordinates.
    """

    projection: Tensor

    def __init__(self, width: int, grids: int = 32, bins: int = 10, seed: int = 0, hard: bool = False) -> None:
        super().__init__()
        self.grids, self.bins, self.hard = grids, bins, hard
        draws = torch.randn(width, 2 * grids, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.register_buffer("projection", draws / width**0.5)

    @property
    def size(self) -> int:
        """Length of a code."""
        return self.grids * (self.bins + 1) ** 2

    @torch.no_grad()
    def code(self, features: Tensor) -> SparseCode:
        """What is not zero in the codes of ``(B, D)`` features."""
        place = self.bins * (features.double() @ self.projection.double()).sigmoid().unflatten(1, (self.grids, 2))
        cell = place.floor().clamp_max(self.bins - 1)  # (B, G, 2)
        inside = torch.zeros_like(place) if self.hard else place - cell
        sides, edge = torch.stack([1 - inside, inside]), self.bins + 1  # (2, B, G, 2): weights of both neighbours
        first = cell[..., 0] * edge + cell[..., 1] + edge**2 * torch.arange(self.grids, device=place.device)
        corners = [(i, j) for i in range(2) for j in range(2)]
        nodes = torch.stack([first + i * edge + j for i, j in corners], dim=-1)
        weights = torch.stack([sides[i, ..., 0] * sides[j, ..., 1] for i, j in corners], dim=-1)
        return SparseCode(nodes.long().flatten(1), weights.flatten(1))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, G (b + 1)^2)`` float64 codes."""
        nodes, weights = self.code(features)
        return weights.new_zeros(len(nodes), self.size).scatter_add_(1, nodes, weights)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.projection.shape[0]} -> {self.size}, grids={self.grids}, bins={self.bins}, hard={self.hard}"


class SoftGridHead(GramHead):
    """A :class:`GramHead` on sparse codes: the ridge solution of all samples so far, after any order.

    Args:
        grid: Makes the codes.
        num_classes: Columns, ``C``.
        ridge: Strength of the regularisation, above 0: a node without samples has nothing else.
    """

    def __init__(self, grid: SoftGrid, num_classes: int, ridge: float) -> None:
        super().__init__(grid.size, num_classes, ridge)
        self.grid = grid

    def hidden(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to their codes."""
        codes: Tensor = self.grid(features.detach())
        return codes
