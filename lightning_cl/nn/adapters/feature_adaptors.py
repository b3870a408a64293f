"""Small networks on features, one for each domain, of a shape that is chosen before they are trained."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.load_hooks import after_load
from lightning_cl.nn.zero_cost import naswot

ACTIVATIONS = (F.relu, F.gelu, torch.tanh)


class Shape(NamedTuple):
    """What an adaptor looks like.

    Attributes:
        depth: Hidden layers, 1 or 2.
        width: Units of each.
        activation: Place in :data:`ACTIVATIONS`.
    """

    depth: int
    width: int
    activation: int


def draw_shape(width: int, budget: int, generator: torch.Generator) -> Shape:
    """A random shape of at most ``budget`` weights on features of ``width`` channels, at least one unit wide."""
    depth = 1 + int(torch.randint(2, (), generator=generator))
    widest = widest_within(width, budget, depth)
    units = max(1, round(widest * (0.5 + 0.5 * float(torch.rand((), generator=generator)))))
    return Shape(depth, min(units, widest), int(torch.randint(len(ACTIVATIONS), (), generator=generator)))


def widest_within(width: int, budget: int, depth: int) -> int:
    """Most units of a hidden layer for which an adaptor has at most ``budget`` weights; at least 1."""
    if depth == 1:
        return max(1, budget // (2 * width))
    return max(1, int(((2 * width) ** 2 + 4 * budget) ** 0.5 - 2 * width) // 2)


class FeatureAdaptors(nn.Module):
    """``z + U phi(M phi(D z))`` and a linear head behind it, for each of ``T`` domains; ``U`` starts at zero.

    The parameters hold the widest shape of every domain, of which a domain uses its own part, so that graph and
    optimiser stay what they are.

    Args:
        slots: Domains, ``T``.
        width: Channels of a feature, ``W``.
        num_classes: ``C``.
        budget: Weights of an adaptor at most, its head aside.
    """

    shapes: Tensor

    def __init__(self, slots: int, width: int, num_classes: int, budget: int) -> None:
        super().__init__()
        first, second = (widest_within(width, budget, depth) for depth in (1, 2))
        self.budget = budget
        self.down = nn.Parameter(torch.zeros(slots, first, width))
        self.middle = nn.Parameter(torch.zeros(slots, second, second))
        self.up = nn.Parameter(torch.zeros(slots, first, width))
        self.head = nn.Parameter(torch.zeros(slots, num_classes, width))
        self.bias = nn.Parameter(torch.zeros(slots, num_classes))
        self.register_buffer("shapes", torch.zeros(slots, 3, dtype=torch.long))
        self.growing = ("down", "middle", "up", "head", "bias", "shapes")
        self._known: dict[int, Shape] = {}
        after_load(self, "_forget_shapes")

    def _forget_shapes(self) -> None:
        self._known.clear()

    def shape_of(self, slot: int) -> Shape:
        """The shape of a domain's adaptor."""
        if slot not in self._known:
            self._known[slot] = Shape(*self.shapes[slot].tolist())
        return self._known[slot]

    @torch.no_grad()
    def choose(self, slot: int, features: Tensor, candidates: int, generator: torch.Generator) -> Shape:
        """Draw shapes with weights, and keep the one that tells ``(N, W)`` features apart best; nothing is trained."""
        best = float("-inf")
        for number in range(candidates):
            shape = draw_shape(self.down.shape[2], self.budget, generator)
            weights = self._drawn(shape, generator)
            score = naswot(_active(features.to(self.down), shape, *weights))
            if number == 0 or score > best:
                best = score
                self._write(slot, shape, weights)
        edge = self.head.shape[2] ** -0.5
        self.head[slot] = edge * (2 * torch.rand(self.head.shape[1:], generator=generator) - 1).to(self.head)
        return self.shape_of(slot)

    def _drawn(self, shape: Shape, generator: torch.Generator) -> list[Tensor]:
        """Kaiming's uniform for each layer but the last, on the features' device."""
        width = self.down.shape[2]
        sizes = [(shape.width, width)] + [(shape.width, shape.width)] * (shape.depth - 1)
        drawn = (2 * torch.rand(size, generator=generator) - 1 for size in sizes)
        return [((6 / part.shape[1]) ** 0.5 * part).to(self.down) for part in drawn]

    def _write(self, slot: int, shape: Shape, weights: list[Tensor]) -> None:
        for parameter in (self.down, self.middle, self.up):
            parameter[slot] = 0
        self.down[slot, : shape.width] = weights[0]
        if shape.depth == 2:
            self.middle[slot, : shape.width, : shape.width] = weights[1]
        self.shapes[slot] = torch.tensor(shape)
        self._known[slot] = shape

    def logits(self, features: Tensor, slot: int) -> Tensor:
        """``(N, C)`` logits of a domain for ``(N, W)`` features."""
        shape = self.shape_of(slot)
        phi = ACTIVATIONS[shape.activation]
        hidden = phi(features @ self.down[slot, : shape.width].T)
        if shape.depth == 2:
            hidden = phi(hidden @ self.middle[slot, : shape.width, : shape.width].T)
        adapted = features + hidden @ self.up[slot, : shape.width]
        return F.linear(adapted, self.head[slot], self.bias[slot])


def _active(features: Tensor, shape: Shape, *weights: Tensor) -> Tensor:
    """``(N, U)`` bool: which hidden units of an adaptor are above 0."""
    hidden, codes = features, []
    for weight in weights:
        before = hidden @ weight.T
        codes.append(before > 0)
        hidden = ACTIVATIONS[shape.activation](before)
    return torch.cat(codes, dim=1)
