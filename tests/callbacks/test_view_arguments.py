"""Arguments of second views: what they say, and in which methods."""

from __future__ import annotations

import pytest

from lightning_cl.callbacks import PRD, SCR
from lightning_cl.training.contrast import View


def test_a_method_s_view_is_as_its_arguments_say() -> None:
    assert SCR(flip=False, jitter=0.0).view == View(0.2, False, 0.0, 0.2)
    assert PRD(least_area=1.0, gray=0.0).view == View(1.0, True, 0.4, 0.0)


def test_a_view_out_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`least_area` is 0.0; give a number above 0"):
        PRD(least_area=0.0)
    with pytest.raises(ValueError, match=r"`gray` is 2; give a number in \[0, 1\]"):
        SCR(gray=2)
