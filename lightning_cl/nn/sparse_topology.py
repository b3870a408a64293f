"""Sparse training: how dense each layer is, and which weights die and grow while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from lightning_cl.nn.masks import random_elements, smallest_elements

Growth = Literal["random", "gradient", "unfired"]


def uniform_densities(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The same share of active weights in every layer."""
    return dict.fromkeys(shapes, density)


def erk_densities(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Erdos-Renyi kernel: ``eps * sum(dims) / prod(dims)`` of each layer (SET and RigL, arXiv:1911.11134).

    ``eps`` is such that ``density`` of all weights are active; a layer that would be more than dense is dense, and
    ``eps`` is solved again for the others.

    Args:
        shapes: Of the weights, by name.
        density: In [0, 1].
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        sums = {name: sum(shape) for name, shape in shapes.items() if name not in dense}
        eps = left / sum(sums.values()) if sums else 0.0
        full = {name for name, dims in sums.items() if eps * dims > sizes[name]}
        if not full:
            return {name: 1.0 if name in dense else eps * sums[name] / sizes[name] for name in shapes}
        dense |= full


def death_rate(step: int, steps: int, start: float = 0.5, end: float = 0.005) -> float:
    """Share of active weights that die at an update: a cosine from ``start`` at step 0 to ``end`` at step ``steps``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


@torch.no_grad()
def new_topology(
    weight: Tensor,
    active: Tensor,
    rate: float,
    growth: Growth,
    generator: Generator,
    score: Tensor | None = None,
    fired: Tensor | None = None,
) -> Tensor:
    """Let the smallest active weights die and as many others grow (arXiv:2308.14831); the number of active ones stays.

    Args:
        weight: Any shape.
        active: Boolean, of the weight's shape.
        rate: Share of the active weights that die, in [0, 1]; rounded down.
        growth: Which weights grow: at ``"random"``, those with the largest ``score`` by magnitude (``"gradient"``), or
            at random among those that were never active before (``"unfired"``; at random among all once these are used
            up).
        generator: On the CPU; the same one gives the same weights on all processes.
        score: Such as a gradient, of the weight's shape; for ``"gradient"``.
        fired: What has been active at any time; for ``"unfired"``.

    Returns:
        What is active now; a weight that has just died does not grow.
    """
    dead = smallest_elements(weight, rate, active)
    asleep, count = ~active, int(dead.sum())
    count = min(count, int(asleep.sum()))
    order = torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
    if growth == "gradient":
        assert score is not None
        order = score.abs().double()
    elif growth == "unfired":
        assert fired is not None
        order = order - fired.double()
    grown = torch.zeros_like(active).flatten()
    grown[order.masked_fill(~asleep, -torch.inf).flatten().argsort(descending=True, stable=True)[:count]] = True
    if count < int(dead.sum()):  # nothing is left that could grow
        dead = smallest_elements(weight, count / max(int(active.sum()), 1) + 1e-9, active)
    return (active & ~dead) | grown.view_as(active)


def first_topology(
    shapes: Mapping[str, Sequence[int]], densities: Mapping[str, float], generator: Generator
) -> dict[str, Tensor]:
    """Random masks of exactly ``int(density * n)`` of the ``n`` weights of each layer."""
    return {name: random_elements(shape, densities[name], generator) for name, shape in shapes.items()}
