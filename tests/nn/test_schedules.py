from __future__ import annotations

import pytest
import torch

from lightning_cl.nn import coda_cosine, coda_cosine_released
from lightning_cl.nn.schedules import infinite_rate, warm_cosine, warm_restarts


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
def test_the_formula_of_the_official_code(epoch, epochs, expected):
    assert coda_cosine(epoch, epochs) == pytest.approx(expected, abs=5e-5)


class ReleasedLoop(torch.optim.lr_scheduler.LRScheduler):
    """The reference of the released curve: a scheduler whose constructor sets the counter back by one epoch."""

    def __init__(self, optimizer, epochs):
        self.epochs = epochs
        super().__init__(optimizer)
        self.last_epoch = -1

    def get_lr(self):
        return [rate * coda_cosine(max(self.last_epoch, 0), self.epochs) for rate in self.base_lrs]


@pytest.mark.parametrize("epochs", [2, 3, 5, 20, 50])
def test_the_released_curve_is_that_of_a_scheduler_set_back_by_one(epochs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
    scheduler, rates = ReleasedLoop(optimizer, epochs), []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.002 * coda_cosine_released(epoch, epochs) for epoch in range(epochs)])


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [1]), (2, [1, 1]), (3, [1, 1, 0.7126]), (20, [1, 1, 0.9967, 0.0974]), (50, [1, 1, 0.9995, 0.0474])],
)
def test_known_multipliers_of_the_released_runs(epochs, expected):
    curve = [coda_cosine_released(epoch, epochs) for epoch in range(epochs)]
    assert curve[:3][: len(expected)] + curve[-1:] * (epochs > 3) == pytest.approx(expected, abs=5e-5)
    assert coda_cosine_released(epochs, epochs) == curve[-1]


def test_it_falls_and_never_reaches_zero():
    curve = [coda_cosine(epoch, 7) for epoch in range(7)]
    assert curve == sorted(curve, reverse=True)
    assert min(curve) > 0.015


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_past_the_end_the_last_multiplier_stays(epochs):  # the formula itself would be negative for two epochs
    assert coda_cosine(epochs, epochs) == coda_cosine(epochs - 1, epochs) > 0


@pytest.mark.parametrize(("epoch", "epochs"), [(0, 0), (-1, 5)])
def test_epochs_that_do_not_exist(epoch, epochs):
    for schedule in (coda_cosine, coda_cosine_released):
        with pytest.raises(ValueError, match=f"epoch {epoch} of {epochs} does not exist"):
            schedule(epoch, epochs)


def test_warm_restarts_are_torchs_after_a_first_epoch_at_a_tenth():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=2, eta_min=5e-4)
    assert warm_restarts(0, 0.05) == pytest.approx(0.005)
    for epoch in range(1, 256):
        assert warm_restarts(epoch, 0.05) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 3e-4), (0.25, 2.6046e-4), (0.5, 1.65e-4), (0.75, 6.954e-5), (1, 3e-5)]
)
def test_the_cosine_of_continual_pre_training(share, expected):
    assert 3e-4 * warm_cosine(round(400 * share), 400, 0, 0.1) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("warmup", [0, 1, 7, 40])
def test_rates_rise_to_the_peak_and_tasks_follow_without_a_jump(warmup):
    rates = [warm_cosine(step, 40, warmup, 0.1, 0.8) for step in range(41)]
    assert rates[warmup] == (pytest.approx(0.8) if warmup < 40 else 0.8)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    if warmup:
        assert rates[0] == 0.1
    if warmup < 40:
        assert rates[-1] == warm_cosine(99, 40, warmup, 0.1, 0.8) == pytest.approx(0.1)


def test_the_infinite_schedule():
    rates = [3e-4 * infinite_rate(step, (10, 20, 40), 200, 0.55, 0.1) for step in range(202)]
    assert rates[0] == pytest.approx(3e-5)
    assert rates[10] == pytest.approx(3e-4)
    assert rates[20] == pytest.approx((3e-4 + 1.65e-4) / 2)
    assert rates[30:161] == pytest.approx([1.65e-4] * 131)
    assert rates[180] == pytest.approx(7.0356e-5, rel=1e-4)  # the middle of the annealing
    assert rates[200:] == pytest.approx([3e-5] * 2)
    assert [infinite_rate(step, (0, 0, 0), 9, 0.55, 0.1) for step in (5, 9, 10, 50)] == [0.55] * 4
