"""Delay, misses and false alarms by hand."""

from __future__ import annotations

import math

import pytest

from lightning_cl.metrics.functional import boundary_score


def test_by_hand() -> None:
    assert boundary_score([12, 25, 27, 60], [10, 20, 40]) == (pytest.approx((2 + 5 + 20) / 3), 0, 1)
    assert boundary_score([5, 25], [10, 20]) == (5, 1, 1)
    assert boundary_score([10], [10]) == (0, 0, 0)
    delay, missed, alarms = boundary_score([], [10, 20])
    assert math.isnan(delay)
    assert (missed, alarms) == (2, 0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no boundary to find"):
        boundary_score([1], [])
    with pytest.raises(ValueError, match="give places that rise"):
        boundary_score([3, 3], [1])
