"""HAT's gates: annealing, compensation, what is left of gradients, and whose units a layer reads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import annealed_scale, compensation, free_share, gate_penalty
from lightning_cl.nn.gates import units_before


def test_the_scale_goes_from_one_end_to_the_other():
    assert annealed_scale(0, 400) == 1 / 400
    assert annealed_scale(0.25, 400) == pytest.approx(0.0025 + 0.25 * (400 - 0.0025))
    assert annealed_scale(1, 400) == pytest.approx(400)


def test_compensation_at_the_start():
    zero = torch.zeros(1, dtype=torch.float64)
    assert_close(compensation(zero, 1 / 400, 400), zero + 160_000)


def test_compensated_gradients_are_those_of_a_plain_sigmoid():
    e = torch.tensor([-0.7, 0.0, 0.02, 1.1], dtype=torch.float64, requires_grad=True)
    (annealed,) = torch.autograd.grad(torch.sigmoid(3 * e).sum(), e)
    (plain,) = torch.autograd.grad(torch.sigmoid(e).sum(), e)
    assert_close(annealed * compensation(e.detach(), 3, 400), 400 * plain)


def test_compensation_stays_finite():
    e = torch.tensor([6.0, -6.0])
    limit = (math.cosh(50) + 1) / (math.cosh(6) + 1)
    assert_close(compensation(e, 400, 400), torch.full((2,), limit))


def test_penalty_counts_free_units_only():
    gates, used = torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0])
    assert float(gate_penalty([gates], [used])) == 0.5
    assert float(gate_penalty([gates, gates[:1]], [used, used[1:]])) == pytest.approx(1.5 / 2)
    assert float(gate_penalty([gates], [torch.ones(2)])) == 0  # nothing is free


def test_weights_between_used_units_have_no_gradient():
    out, read = torch.tensor([1.0, 0.25, 0.0]), torch.tensor([1.0, 0.5])
    assert_close(free_share(out, read), torch.tensor([[0.0, 0.5], [0.75, 0.75], [1.0, 1.0]]))
    assert_close(free_share(out), torch.tensor([[0.0], [0.75], [1.0]]))


def test_units_are_known_within_a_sequence():
    stages = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid())
    net = nn.ModuleDict({"a": stages, "b": nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))})
    assert units_before(net) == {"a.4": "a.0", "b.2": "b.0"}
    stages.append(nn.Linear(8, 2))  # behind a sigmoid, which answers 1/2 for a shut unit
    assert "a.6" not in units_before(net)
    tokens = nn.Sequential(nn.Linear(8, 4), nn.Flatten(), nn.Linear(12, 2))
    assert units_before(tokens) == {}
    assert units_before(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2))) == {}
