"""Remedies for imbalance: the numbers of their specification."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.nn.imbalance import inverse_weights, ldam_margins, log_priors, with_margins

COUNTS = torch.tensor([500, 5, 0])


def test_margins() -> None:
    assert ldam_margins(COUNTS).tolist() == pytest.approx([0.158114, 0.5, 0.0], abs=1e-6)
    assert ldam_margins(torch.tensor([7, 7])).tolist() == [0.5, 0.5]


def test_priors() -> None:
    assert log_priors(COUNTS).tolist() == pytest.approx([-0.009950, -4.615121, 0.0], abs=1e-6)


def test_weights_of_rare_classes() -> None:
    assert inverse_weights(COUNTS).tolist() == pytest.approx([2 * 5 / 505, 2 * 500 / 505, 0.0])
    assert inverse_weights(torch.tensor([7, 7])).tolist() == [1.0, 1.0]


def test_the_margin_is_of_the_target_alone() -> None:
    found = with_margins(torch.ones(2, 2), torch.tensor([1, 0]), torch.tensor([0.25, 0.5]))
    assert found.tolist() == [[1.0, 0.5], [0.75, 1.0]]
