"""Membership gap, distance of distributions and generalisation of forgetting, against loops and published values."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_cl.metrics import functional as F


def test_the_example_of_the_specification():
    assert F.kolmogorov_smirnov([0.1, 0.4, 0.5], [0.2, 0.45, 0.9]).item() == pytest.approx(1 / 3)
    assert F.forget_generalisation(0.9, 0.6, 0.5) == pytest.approx(0.75)


def test_against_every_threshold():
    torch.manual_seed(0)
    members, others = torch.rand(17).round(decimals=1), torch.rand(23).round(decimals=1) + 0.1  # with equal values
    gaps = [float((members <= t).double().mean() - (others <= t).double().mean()) for t in [*members, *others]]
    assert F.membership_gap(members, others).item() == pytest.approx(max(gaps))
    assert F.kolmogorov_smirnov(members, others).item() == pytest.approx(max(map(abs, gaps)))
    assert F.kolmogorov_smirnov(others, members).item() == pytest.approx(max(map(abs, gaps)))


def test_both_ends():
    assert F.membership_gap([0.1, 0.2], [0.3, 0.4, 0.5]).item() == 1
    assert F.membership_gap([0.3, 0.4], [0.1, 0.2]).item() == 0  # a higher loss is no sign of membership
    assert F.membership_gap([0.3, 0.4], [0.4, 0.3]).item() == 0
    assert F.forget_generalisation(0.8, 0.8, 0.1) == 0
    assert F.forget_generalisation(0.8, 0.1, 0.1) == 1
    assert math.isnan(F.forget_generalisation(0.1, 0.1, 0.1))


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="there are 0 and 2 values to compare"):
        F.membership_gap([], [1.0, 2.0])
