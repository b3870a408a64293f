"""The adaptive learning rate: turns of high and low, the verdict of the test, and steps of another length."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cl.nn.adaptive_rate import AdaptiveRate, StepFactor


def told(rate: AdaptiveRate, high: float, low: float, count: int) -> None:
    noise = torch.rand(count, generator=torch.Generator().manual_seed(0)).tolist()
    for turn in range(2 * count):
        rate.change((low if rate.low.value else high) + 0.01 * noise[turn // 2])


@pytest.mark.parametrize(("high", "low", "exponent"), [(0.1, 0.5, 1), (0.5, 0.1, -1), (0.3, 0.3, 0)])
def test_the_better_rate_wins_once_ten_of_each_are_known(high: float, low: float, exponent: int) -> None:
    rate = AdaptiveRate()
    assert rate.factor == 1.0
    rate.change(None)
    assert rate.factor == pytest.approx(0.95)  # in turn
    rate.change(None)
    told(rate, high, low, 9)
    assert rate.factor == 1.0
    assert rate.counts.tolist() == [9, 9]
    told(rate, high, low, 1)
    assert rate.factor == pytest.approx(0.95**exponent)
    assert rate.counts.tolist() == ([0, 0] if exponent else [10, 10])  # all records begin anew
    again = AdaptiveRate()
    again.load_state_dict(rate.state_dict())
    assert again.factor == rate.factor


@pytest.mark.parametrize("make", [lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), torch.optim.Adam])
@pytest.mark.parametrize("factor", [0.9025, 1.0, 1.3])
def test_a_longer_step_is_a_larger_learning_rate(make, factor: float) -> None:
    ends = []
    for lr, times in ((0.1, factor), (0.1 * factor, None)):
        weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer = make([weight], lr)
        if times is not None:
            StepFactor([weight], times).attach(optimizer)
        for _ in range(4):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            with torch.no_grad():
                weight.grad.copy_(torch.tensor([0.3, -1.0]))  # else the two would run apart
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends)
