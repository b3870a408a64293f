"""Recovery time: exact on series that are written down."""

from __future__ import annotations

import pytest

from lightning_cl.metrics.functional import recovery_time


def test_recovery_of_known_series() -> None:
    errors = [1.0, 1.0, 1.0, 5.0, 3.0, 1.2, 1.05, 0.9]
    assert recovery_time(errors, 3) == 3
    assert recovery_time(errors, 3, slack=1.3) == 2
    assert recovery_time([1.0, 1.0, 0.5], 2) == 0
    assert recovery_time([1.0, 2.0, 2.0], 1) is None
    assert recovery_time([9.0, 1.0, 1.0, 5.0, 1.05], 3, window=2) == 1
    assert recovery_time([9.0, 1.0, 1.0, 5.0, 1.05], 3, window=3) == 1
    assert recovery_time([9.0, 1.0, 1.0, 3.9], 3, window=3) == 0  # the level is 11 / 3
    assert recovery_time([9.0, 1.0, 1.0, 3.9], 3, window=2) is None


@pytest.mark.parametrize("change", [0, 3])
def test_a_change_outside_of_the_series_is_refused(change: int) -> None:
    with pytest.raises(ValueError, match="a step from 1 to 2"):
        recovery_time([1.0, 1.0, 1.0], change)
