"""Forget- and retain-accuracy: the published example, a matrix by hand, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.metrics import functional as F
from lightning_cl.metrics import summarise

NAN = float("nan")
#: Two tasks learn, two ask to forget; 10, 30, 20 and 40 samples.
ACC = torch.tensor([[0.9, 0, 0.2, 0], [0.8, 0.7, 0.9, 0.6], [0.7, 0.6, 0.1, 0.5], [0.6, 0.5, 0.3, 0.0]]).double()
SIZES = [10, 30, 20, 40]


def test_the_published_example():
    """From 80 to 0 with 70 retained: H = 74.667 (arXiv:2403.11530)."""
    acc = torch.tensor([[0.9, 0.8], [0.7, 0.0]]).double()
    assert_close(F.forget_harmonic_mean(acc, 1, [10, 10]).item(), 0.746667, atol=1e-6, rtol=0)


def test_a_matrix_by_hand():
    assert_close(F.forget_drop(ACC, 2), torch.tensor([0.8, 0.5]).double())
    retained = torch.tensor([(0.7 * 10 + 0.6 * 30 + 0.5 * 40) / 80, (0.6 * 10 + 0.5 * 30) / 40]).double()
    assert_close(F.retain_accuracy(ACC, 2, SIZES), retained)
    assert_close(F.forgotten_accuracy(ACC, 2, SIZES), torch.tensor([0.1, (0.3 * 20) / 60]).double())


def test_the_numbers_of_a_report():
    numbers = {n: v for n, v in summarise(ACC, sizes=SIZES, requests=2).items() if n.startswith("forget/")}
    assert {name: round(value, 6) for name, value in numbers.items()} == {
        "forget/forget_accuracy": 0.0,
        "forget/forget_drop": 0.5,
        "forget/forgotten_accuracy": 0.1,
        "forget/retain_accuracy": 0.525,
        "forget/h_mean": 0.512195,
        "forget/average_h_mean": 0.586373,  # with 2 * .8 * .5625 / 1.3625 after the first
    }
    partly = ACC.clone()
    partly[3] = NAN
    assert summarise(partly, sizes=SIZES, requests=2)["forget/retain_accuracy"] == pytest.approx(0.5625)
    partly[2] = NAN
    assert {v for n, v in summarise(partly, sizes=SIZES, requests=2).items() if n.startswith("forget/")} == {None}


def test_an_empty_column_does_not_count():
    acc = torch.tensor([[0.5, NAN, 0.8], [0.5, NAN, 0.8], [0.4, NAN, 0.2]]).double()
    assert F.retain_accuracy(acc, 1, [10, 0, 10]).item() == pytest.approx(0.4)


def test_what_became_better_was_not_forgotten():
    acc = torch.tensor([[0.5, 0.2], [0.5, 0.6]]).double()
    assert F.forget_harmonic_mean(acc, 1, [1, 1]).item() == 0


@pytest.mark.parametrize("requests", [0, 4])
def test_some_task_learns_and_some_task_asks(requests):
    with pytest.raises(ValueError, match=rf"`requests` is {requests}, but there are 4 tasks"):
        F.forget_drop(ACC, requests)
