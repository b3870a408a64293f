from __future__ import annotations

import math
from statistics import fmean, pstdev

import pytest
import torch

from lightning_cl.nn.loss_shift import LossShift


@pytest.mark.parametrize("loss", [0.1, 2.3, 1e-7, 0.0])
def test_a_constant_loss_never_jumps(loss):
    detector = LossShift(window=10, cooldown=0)
    assert not any(detector.observe(loss) for _ in range(300))


@pytest.mark.parametrize("jump", [1.4, 2.0, 9.0])
def test_a_jump_is_found_at_the_first_loss_whose_smoothed_value_exceeds_the_bound(jump):
    detector, losses = LossShift(window=20, deviations=3.0, smoothing=0.2, cooldown=0), [0.9, 1.1] * 40
    assert not any([detector.observe(loss) for loss in losses])
    smoothed, bound = losses[0], fmean(losses[-20:]) + 3 * pstdev(losses[-20:])
    for loss in losses:
        smoothed = 0.2 * loss + 0.8 * smoothed
    wanted = next(n for n in range(1, 99) if jump - (jump - smoothed) * 0.8**n > bound)
    answers = [detector.observe(jump) for _ in range(wanted)]
    assert answers == [False] * (wanted - 1) + [True]
    assert wanted == {1.4: 7, 2.0: 2, 9.0: 1}[jump]


def test_a_falling_loss_never_jumps_although_the_smoothed_one_lags_behind():
    detector = LossShift(window=5, deviations=0.0, cooldown=0)
    assert not any(detector.observe(0.5**n) for n in range(60))


def test_from_rest_a_step_is_found_at_once():
    detector = LossShift(window=5, cooldown=0)
    assert [detector.observe(loss) for loss in [1.0] * 5 + [1.0 + 1e-6]] == [False] * 5 + [True]


def test_a_window_must_be_full_and_the_cooldown_over():
    detector = LossShift(window=4, cooldown=6)
    assert not any(detector.observe(loss) for loss in (1.0, 1.0, 1.0, 5.0))
    detector = LossShift(window=4, cooldown=6)
    assert not any(detector.observe(1.0) for _ in range(4))
    assert [detector.observe(9.0) for _ in range(3)] == [False, False, True]  # the fifth to the seventh


def test_learners_have_windows_of_their_own_and_a_restart_forgets_what_was_smoothed():
    detector = LossShift(window=3, cooldown=0, learners=2)
    for _ in range(3):
        detector.observe(1.0, 0)
    assert detector.observe(4.0, 0)
    detector.restart()
    assert detector.bound(1) == math.inf
    for _ in range(3):
        assert not detector.observe(4.0, 1)
    assert detector.bound(0) == pytest.approx(1.0)
    assert detector.bound(1) == pytest.approx(4.0)


def test_the_state_comes_back():
    torch.manual_seed(0)
    losses = torch.rand(60).tolist()
    whole, first, second = (LossShift(window=7, deviations=0.3, cooldown=3) for _ in range(3))
    answers = [whole.observe(loss) for loss in losses]
    begun = [first.observe(loss) for loss in losses[:25]]
    second.load_state_dict(first.state_dict())
    assert begun + [second.observe(loss) for loss in losses[25:]] == answers
    assert any(answers)


def test_a_detector_without_samples_is_refused():
    with pytest.raises(ValueError, match="`window` is 0; a detector needs samples"):
        LossShift(window=0)
    for wrong in ({"smoothing": 0.0}, {"deviations": -1.0}, {"cooldown": -1}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is"):
            LossShift(**wrong)
