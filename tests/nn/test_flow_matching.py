"""Flow matching: straight lines, exact integration of simple fields, and a flow that learns a shift of the regime."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.flow_matching import ActionFlow, changed_regime, follow, straight_lines


def test_places_lie_on_lines_and_say_where_they_lead() -> None:
    start, end = torch.randn(2, 50, 3, dtype=torch.float64)
    line = straight_lines(start, end, torch.Generator().manual_seed(0))
    assert_close(line.velocity, end - start)
    assert_close(line.place - line.time * line.velocity, start)
    assert_close(line.place + (1 - line.time) * line.velocity, end)
    assert 0 <= float(line.time.min()) < 0.1 < 0.9 < float(line.time.max()) <= 1


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_true_velocity_reaches_the_end_in_any_number_of_steps(steps: int) -> None:
    start, end = torch.randn(2, 4, 3, dtype=torch.float64)
    assert_close(follow(lambda time, place: end - start, start, steps), end)


def test_the_midpoint_rule() -> None:
    """``dx/dt = x`` multiplies by ``(1 + h + h^2 / 2)`` a step; a field linear in time is integrated exactly."""
    start = torch.ones(1, 1, dtype=torch.float64)
    assert float(follow(lambda time, place: place, start, 10)) == pytest.approx((1 + 0.1 + 0.005) ** 10)
    assert float(follow(lambda time, place: place, start, 100)) == pytest.approx(math.e, abs=1e-4)
    assert_close(follow(lambda time, place: 2 * time, start, 1), start + 1)


def test_small_errors_are_no_new_regime() -> None:
    predicted, realised = torch.zeros(3, 2), torch.tensor([[0.6, 0.8], [0.6, 0.81], [0.0, 0.3]])
    assert_close(changed_regime(realised, predicted), torch.tensor([[0.0, 0.0], [0.6, 0.81], [0.0, 0.0]]))


def test_equal_actions_and_a_silent_flow_have_no_loss() -> None:
    flow = ActionFlow(2, 1)
    last = flow.joint[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    action, state, error = torch.randn(5, 1), torch.randn(5, 2), torch.zeros(5, 2)
    assert flow.loss(action, action, state, error).item() == 0
    assert torch.equal(flow.correct(action, state, error), action)
    assert [(m.in_features, m.out_features) for m in flow.modules() if isinstance(m, torch.nn.Linear)] == [
        (2, 64), (64, 64), (5, 64), (64, 64), (128, 128), (128, 64), (64, 1),
    ]  # fmt: skip


def test_a_flow_learns_what_a_regime_does_to_actions() -> None:
    """Where the error is high actions must be 0.5 higher, and else remain."""
    torch.manual_seed(0)
    flow, generator = ActionFlow(2, 1), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    planned, state = torch.rand(256, 1), torch.rand(256, 2)
    error = 2.0 * (torch.arange(256) % 2)[:, None].repeat(1, 2)
    intended = planned + 0.25 * error[:, :1]
    for _ in range(80):
        optimizer.zero_grad()
        flow.loss(planned, intended, state, error, generator).backward()
        optimizer.step()
    left = (flow.correct(planned, state, error) - intended).abs().mean()
    assert float(left) < 0.03 < float((planned - intended).abs().mean()) / 5


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"starts are \(2, 1\) and ends \(3, 1\)"):
        straight_lines(torch.zeros(2, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="`steps` is 0"):
        follow(lambda time, place: place, torch.zeros(1, 1), 0)
