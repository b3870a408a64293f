"""Sparse topologies: densities, the rate of death, and updates that keep the count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.nn.sparse_topology import death_rate, erk_densities, first_topology, new_topology, uniform_densities

SHAPES = {"conv": (8, 4, 3, 3), "wide": (64, 32), "small": (4, 2)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 0.9])
def test_erk_reaches_the_density_in_all(density: float) -> None:
    sizes = {name: math.prod(shape) for name, shape in SHAPES.items()}
    found = erk_densities(SHAPES, density)
    assert all(0 <= share <= 1 for share in found.values())
    assert sum(found[name] * size for name, size in sizes.items()) == pytest.approx(density * sum(sizes.values()))
    raw = [found[name] * sizes[name] / sum(SHAPES[name]) for name in SHAPES if found[name] < 1]
    assert raw == pytest.approx([raw[0]] * len(raw))  # one epsilon for all that are not dense


def test_small_layers_become_dense_first() -> None:
    found = erk_densities(SHAPES, 0.2)
    assert found["small"] == 1.0  # of 8 weights, for the sum 6 of its sides
    assert found["conv"] > found["wide"]
    assert uniform_densities(SHAPES, 0.2) == dict.fromkeys(SHAPES, 0.2)


def test_the_first_masks_are_counted_exactly() -> None:
    masks = first_topology(SHAPES, {"conv": 0.5, "wide": 0.1, "small": 1.0}, generator())
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"conv": 144, "wide": 204, "small": 8}


def test_the_rate_of_death() -> None:
    assert death_rate(0, 10) == 0.5
    assert death_rate(5, 10) == pytest.approx((0.5 + 0.005) / 2)
    assert death_rate(10, 10) == death_rate(12, 10) == pytest.approx(0.005)
    assert death_rate(2, 8) == pytest.approx(0.005 + 0.495 * (1 + math.cos(math.pi / 4)) / 2)


def weight_and_mask() -> tuple[Tensor, Tensor]:
    active = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    return torch.tensor([0.1, -0.5, 0.2, 3.0, 0.0, 0.0, 0.0, 0.0]), active


def test_the_smallest_die_and_the_largest_gradients_grow() -> None:
    weight, active = weight_and_mask()
    score = torch.tensor([9.0, 9.0, 9.0, 9.0, 0.1, -4.0, 0.2, 0.3])
    found = new_topology(weight, active, 0.5, "gradient", generator(), score=score)
    assert found.nonzero().flatten().tolist() == [1, 3, 5, 7]


def test_what_was_never_active_grows_first() -> None:
    weight, active = weight_and_mask()
    fired = torch.tensor([1, 1, 1, 1, 1, 0, 1, 0], dtype=torch.bool)
    for seed in range(5):
        found = new_topology(weight, active, 0.5, "unfired", generator(seed), fired=fired)
        assert found.nonzero().flatten().tolist() == [1, 3, 5, 7]


def test_random_growth_reaches_all_and_is_the_generators() -> None:
    weight, active = weight_and_mask()
    found = [new_topology(weight, active, 0.5, "random", generator(seed)) for seed in range(40)]
    assert torch.stack(found).any(dim=0).tolist() == [False, True, False, True, True, True, True, True]
    assert torch.equal(found[3], new_topology(weight, active, 0.5, "random", generator(3)))


@pytest.mark.parametrize("growth", ["random", "gradient", "unfired"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.95, 1.0])
def test_the_number_of_active_weights_stays(growth: Any, share: float) -> None:
    active = first_topology({"w": (7, 9)}, {"w": share}, generator())["w"]
    weight, score = torch.randn(7, 9, generator=generator(1)), torch.randn(7, 9, generator=generator(2))
    for rate in (0.0, 0.3, 0.8):
        found = new_topology(weight * active, active, rate, growth, generator(3), score=score, fired=active)
        assert int(found.sum()) == int(active.sum())
