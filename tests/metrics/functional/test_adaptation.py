"""Accuracy before and after adaptation, from a matrix by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.metrics import functional as F
from lightning_cl.metrics import summarise

NAN = float("nan")
#: One domain has labels, two have none.
ACC = torch.tensor([[0.9, 0.5, 0.4], [0.8, 0.7, 0.45], [0.85, 0.65, 0.6]], dtype=torch.float64)


def test_a_matrix_by_hand():
    assert_close(F.accuracy_before_adaptation(ACC, [1, 2]), torch.tensor([0.5, 0.4], dtype=torch.float64))
    assert_close(F.accuracy_after_adaptation(ACC, [1, 2]), torch.tensor([0.7, 0.6], dtype=torch.float64))
    assert F.accuracy_after_adaptation(ACC, [1, 2], k=2).tolist() == [0.7]  # the third is not finished
    found = {n: v for n, v in summarise(ACC, unlabelled=[1, 2]).items() if n.startswith("adaptation/")}
    assert {name: round(value, 6) for name, value in found.items()} == {
        "adaptation/accuracy_before": 0.45,
        "adaptation/accuracy_after": 0.65,
        "adaptation/accuracy_gain": 0.2,
        "adaptation/accuracy_at_end": 0.625,
    }


def test_of_a_model_that_was_trained_before_the_stream():
    """What it knew is the baseline; without one it is not known."""
    before = F.accuracy_before_adaptation(ACC, [0, 1, 2], baseline=[0.3, 0.2, 0.1])
    assert_close(before, torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))
    found = summarise(ACC, unlabelled=[0, 1, 2])
    assert found["adaptation/accuracy_before"] is found["adaptation/accuracy_gain"] is None
    assert found["adaptation/accuracy_after"] == pytest.approx((0.9 + 0.7 + 0.6) / 3)


def test_before_the_first_adaptation_there_is_nothing():
    begun = torch.full((3, 3), NAN)
    begun[0] = ACC[0]
    assert {v for n, v in summarise(begun, unlabelled=[1, 2]).items() if n.startswith("adaptation/")} == {None}
