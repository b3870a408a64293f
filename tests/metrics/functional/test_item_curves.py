"""Curves of single items by hand, against a loop, and against the numbers of the specification."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_cl.metrics.functional import (
    class_curves,
    fact_forgetting,
    forgetting_rate,
    item_times,
    learnability,
    retention,
    without_outliers,
)

#: Five evaluations of five items: kept, lost for good, learned again and lost again, never right, seen late.
ANSWERS = torch.tensor(
    [
        [0, 1, 1, 0, 255],
        [1, 1, 0, 0, 255],
        [1, 0, 0, 0, 1],
        [1, 0, 1, 0, 255],
        [1, 0, 0, 0, 0],
    ],
    dtype=torch.uint8,
)


def test_times_by_hand() -> None:
    times = item_times(ANSWERS)
    assert times.learned.tolist() == [1, 0, 0, -1, 2]
    assert times.lost.tolist() == [-1, 2, 1, -1, 4]
    assert times.relearned.tolist() == [-1, -1, 3, -1, -1]
    assert times.losses.tolist() == [0, 1, 2, 0, 1]
    assert times.kept.tolist() == [True, False, False, False, False]


def loop(answers: Tensor) -> list[list[int]]:
    """One item after the other."""
    found = []
    for item in answers.T.tolist():
        learned = lost = relearned = -1
        losses, right = 0, False
        for evaluation, answer in enumerate(item):
            if answer == 255:
                continue
            if answer and learned < 0:
                learned = evaluation
            elif answer and lost >= 0 and relearned < 0:
                relearned = evaluation
            if right and not answer:
                losses += 1
                lost = evaluation if lost < 0 else lost
            right = bool(answer)
        found.append([learned, lost, relearned, losses, int(right)])
    return found


def test_times_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(3, (9, 40), generator=generator)]
    assert torch.stack([part.long() for part in item_times(answers)], 1).tolist() == loop(answers)


def test_retention_is_by_age_since_an_item_was_learned() -> None:
    share = retention(ANSWERS)
    assert share.tolist() == pytest.approx([1.0, 2 / 3, 1 / 4, 2 / 3, 0.0])
    assert retention(torch.zeros(2, 3, dtype=torch.uint8)).isnan().all()


def test_the_rate_is_that_of_the_logarithm() -> None:
    ages = torch.arange(1, 9, dtype=torch.float64)
    assert forgetting_rate(1 - 0.2 * ages.log()) == pytest.approx(0.2)
    assert forgetting_rate(torch.ones(5)) == 0
    assert forgetting_rate(torch.tensor([1.0])) == 0


def test_curves_of_classes() -> None:
    curves = class_curves(ANSWERS, torch.tensor([0, 0, 1, 1, 2]), 3)
    assert curves[:, 0].tolist() == [0.5, 1.0, 0.5, 0.5, 0.5]
    assert curves[:, 1].tolist() == [0.5, 0.0, 0.0, 0.5, 0.0]
    assert curves[:, 2].isnan().tolist() == [True, True, False, True, False]


def test_the_perplexities_of_the_specification() -> None:
    assert learnability(8, 4) == 50
    assert fact_forgetting(4, 5) == 25
    assert fact_forgetting(4, 4) == 0  # a model that is frozen after the injection


def test_outliers_lie_beyond_one_and_a_half_inter_quartile_ranges() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 8.1, math.nan, -90.0])  # quartiles of the known: 1.5 and 4.5
    assert without_outliers(values).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, pytest.approx(8.1)]
    assert without_outliers(values, reach=1.0).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
