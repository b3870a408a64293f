"""Local inhibition against two loops."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_cl.nn.decorrelation import local_inhibition


def test_it_is_the_double_sum() -> None:
    torch.manual_seed(0)
    h, a, scale = torch.rand(3, 5, dtype=torch.float64), torch.rand(5, dtype=torch.float64), 1.7
    expected = 0.0
    for row in h.tolist():
        for i in range(5):
            for j in range(5):
                if i != j:
                    near = math.exp(-((i - j) ** 2) / (2 * scale**2))
                    expected += math.exp(-float(a[i]) - float(a[j])) * near * row[i] * row[j] / 3
    assert float(local_inhibition(h, a, scale)) == pytest.approx(expected)


def test_one_unit_alone_and_units_in_peace_cost_nothing() -> None:
    alone = torch.tensor([[0.0, 2.0, 0.0]])
    assert float(local_inhibition(alone, torch.zeros(3), 1.0)) == 0
    both = torch.ones(1, 2)
    assert float(local_inhibition(both, torch.zeros(2), 1.0)) == pytest.approx(2 * math.exp(-0.5))
    assert float(local_inhibition(both, torch.full((2,), 60.0), 1.0)) == pytest.approx(0, abs=1e-30)
