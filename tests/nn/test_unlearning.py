"""Unlearning losses: numbers of the specification and the formulas typed out."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.unlearning import negative_preference, refusal


@pytest.mark.parametrize(("loss", "value", "slope"), [(2.5, 1.540327, -1.0), (3.0, 1.096109, -0.778722)])
def test_negative_preference_against_a_reference_of_two_and_a_half(loss: float, value: float, slope: float) -> None:
    current = torch.tensor(loss, dtype=torch.float64, requires_grad=True)
    found = negative_preference(current, torch.tensor(2.5).double(), 0.9)
    found.backward()
    assert found.item() == pytest.approx(value, abs=1e-6)
    assert current.grad.item() == pytest.approx(slope, abs=1e-6)


def test_it_is_bounded_where_ascent_is_not() -> None:
    current = torch.tensor(500.0, requires_grad=True)
    negative_preference(current, torch.tensor(2.5), 0.9).backward()
    assert current.grad.item() == 0


def test_refusal_is_the_cross_entropy_with_equal_answers() -> None:
    torch.manual_seed(0)
    logits, allowed = torch.randn(4, 5).double(), torch.tensor([True, False, True, True, False])
    inside = logits[:, allowed].log_softmax(1)
    assert_close(refusal(logits, allowed), -(inside.sum(1) / 3))
    assert_close(refusal(torch.zeros(2, 5), allowed), torch.full((2,), 3.0).log())  # the least that it can be
