"""Leaky and liquid units: values by hand, and layers that are their steps one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn.recurrent_cells import LeakyRNN, LiquidRNN, leaky_step, liquid_step


def test_a_leak_of_the_specification() -> None:
    state, found = torch.ones(1, 1, dtype=torch.float64), []
    for _ in range(8):
        state = leaky_step(state, torch.zeros(1, 1), 4.0)
        found.append(float(state))
    assert [round(found[at], 4) for at in (0, 3, 7)] == [0.75, 0.3164, 0.1001]
    assert_close(leaky_step(state, torch.full((1, 1), 3.0).double(), 1.0), torch.full((1, 1), 3.0).double())


def test_a_liquid_step_of_the_specification_and_its_limit() -> None:
    one, two = torch.ones(1, 1), torch.full((1,), 2.0)
    assert float(liquid_step(torch.zeros(1, 1), one, two, 1.0, 1.0)) == pytest.approx(2 / 3)
    state = torch.full((1, 1), -5.0)
    for _ in range(500):
        state = liquid_step(state, one, two, 0.5, 0.3)
    assert float(state) == pytest.approx(2 / (1 / 0.5 + 1), rel=1e-5)  # where dx/dt is 0


def test_a_leaky_network_is_its_steps() -> None:
    torch.manual_seed(0)
    net, x = LeakyRNN(2, 3, tau=2.5), torch.randn(4, 5, 2)
    assert_close(net.tau, torch.full((3,), 2.5))
    state = torch.zeros(4, 3)
    for at in range(5):
        drive = F.leaky_relu(F.linear(x[:, at], net.into.weight, net.into.bias) + state @ net.again.weight.T)
        state = 0.6 * state + 0.4 * drive
    assert_close(net(x), state)
    net(x).sum().backward()
    assert net.raw_tau.grad is not None
    assert net.raw_tau.grad.any()
    with pytest.raises(ValueError, match="above 1 step"):
        LeakyRNN(2, 3, tau=1.0)


def test_a_liquid_network_follows_the_differential_equation() -> None:
    """With many steps an input it is the solution of small explicit ones."""
    torch.manual_seed(0)
    net, x = LiquidRNN(2, 3, steps=400).double(), torch.randn(2, 2, 2, dtype=torch.float64)
    state = torch.zeros(2, 3, dtype=torch.float64)
    with torch.no_grad():
        for at in range(2):
            for _ in range(4000):
                gate = net.gate(torch.cat([x[:, at], state], 1)).sigmoid()
                state = state + (-state / F.softplus(net.raw_tau) + gate * (net.target - state)) / 4000
        assert_close(net(x), state, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="`steps` is 0; give at least 1"):
        LiquidRNN(2, 3, steps=0)
