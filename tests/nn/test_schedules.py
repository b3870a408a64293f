from __future__ import annotations

import pytest

from lightning_cl.nn import coda_cosine


@pytest.mark.parametrize(
    ("epoch", "epochs", "expected"),
    [
        (0, 50, 1),
        (1, 50, 0.9995),
        (25, 50, 0.7014),
        (40, 50, 0.2968),
        (49, 50, 0.0157),
        (10, 20, 0.6833),
        (16, 20, 0.2583),
        (2, 5, 0.7126),
        (0, 1, 1),
    ],
)
def test_the_multipliers_of_the_official_runs(epoch, epochs, expected):
    assert coda_cosine(epoch, epochs) == pytest.approx(expected, abs=5e-5)


def test_it_falls_and_never_reaches_zero():
    curve = [coda_cosine(epoch, 7) for epoch in range(7)]
    assert curve == sorted(curve, reverse=True)
    assert min(curve) > 0.015


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_past_the_end_the_last_multiplier_stays(epochs):  # the formula itself would be negative for two epochs
    assert coda_cosine(epochs, epochs) == coda_cosine(epochs - 1, epochs) > 0


@pytest.mark.parametrize(("epoch", "epochs"), [(0, 0), (-1, 5)])
def test_epochs_that_do_not_exist(epoch, epochs):
    with pytest.raises(ValueError, match=f"epoch {epoch} of {epochs} does not exist"):
        coda_cosine(epoch, epochs)
