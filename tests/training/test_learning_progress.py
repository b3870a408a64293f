"""Sampling by learning progress: known shares, one fit a window, and a sampler that was saved goes on alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.training.learning_progress import ALPGMM, progress_shares


def taught(episodes: int, window: int = 40) -> ALPGMM:
    """Returns rise with time where the first parameter is above 0.8, and stay 0 elsewhere."""
    sampler = ALPGMM([0.0, 0.0], [1.0, 1.0], window=window, components=3, seed=3)
    for episode in range(episodes):
        point = sampler.sample()
        sampler.update(point, episode / 10 if point[0] > 0.8 else 0.0)
    return sampler


def test_it_samples_where_there_is_progress() -> None:
    sampler = taught(160)
    share = np.mean([sampler.sample()[0] > 0.8 for _ in range(300)])
    assert share > 0.5  # 0.2 of the box


def test_after_a_window_it_fits_exactly_once() -> None:
    assert [taught(count).fits for count in (39, 40, 79, 80)] == [0, 1, 1, 2]
    assert ALPGMM([0.0], [1.0]).window == 250


def test_progress_is_the_change_from_the_nearest_earlier_point() -> None:
    sampler = ALPGMM([0.0], [10.0])
    for at in range(6):
        sampler.update([float(at)], float(at))
    sampler.update([3.2], 5.0)  # nearest: 3, with a return of 3
    sampler.update([3.3], 5.5)  # nearest: 3.2
    assert [row[-1] for row in sampler.state_dict()["recent"]] == pytest.approx([0] * 6 + [2, 0.5])


def test_one_that_was_saved_goes_on_with_the_same_points() -> None:
    sampler = taught(50)
    other = ALPGMM([0.0, 0.0], [1.0, 1.0], window=40, components=3, seed=3)
    other.load_state_dict(sampler.state_dict())
    for own, again in ((sampler.sample(), other.sample()) for _ in range(60)):
        assert own == again
        sampler.update(own, own[0]), other.update(again, again[0])
    assert (sampler.fits, other.fits) == (2, 2)


def test_points_stay_in_the_box() -> None:
    sampler = taught(80)
    points = torch.tensor([sampler.sample() for _ in range(200)])
    assert ((points >= 0) & (points <= 1)).all()
    assert (points == 1).any()  # the mixture reaches beyond


def test_shares_of_the_specification() -> None:
    assert_close(progress_shares(torch.full((20, 4), 0.7)), torch.full((4,), 0.25, dtype=torch.float64))
    values = torch.full((20, 4), 0.7)
    values[:, 2] = torch.linspace(0, 1, 20)
    assert_close(progress_shares(values), torch.tensor([0.05, 0.05, 0.85, 0.05], dtype=torch.float64))
    falls = torch.tensor([[0.5, 0.9, torch.nan], [0.7, 0.3, 0.2]])  # progress 0.2 and 0.6, absolute
    assert_close(progress_shares(falls, explore=0.0), torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("bounds", [([0.0], [0.0]), ([0.0, 1.0], [1.0])])
def test_bounds_that_are_none_are_refused(bounds: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="`low` below `high`"):
        ALPGMM(*bounds)
    with pytest.raises(ValueError, match="a larger window"):
        ALPGMM([0.0], [1.0], window=5)
    with pytest.raises(ValueError, match="0 evaluations"):
        progress_shares(torch.zeros(0, 3))
