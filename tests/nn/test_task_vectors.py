"""Task arithmetic: numbers of the specification, and TIES typed out element by element."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.task_vectors import away_from, old_share, ties


def test_the_share_of_the_old_vector() -> None:
    """(3, 4) and (0, 1): p = 0.685994, tanh p = 0.595403."""
    old, new = torch.tensor([3.0, 4.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert old_share(old, new, 0.5, 0.3).item() == pytest.approx(0.5 + 0.3 * 0.595403, abs=1e-6)
    assert old_share(new, old, 0.5, 0.3).item() == pytest.approx(0.5 - 0.3 * 0.595403, abs=1e-6)
    assert old_share(old, old.flip(0), 0.5, 0.3).item() == 0.5
    assert old_share(torch.zeros(2), torch.zeros(2), 0.5, 0.3).item() == 0.5
    assert 0.2 <= old_share(old, -0.99 * old, 0.5, 0.3).item() <= 0.8  # nearly opposite: the quotient is large


def test_ties_of_two_vectors() -> None:
    """Half of each is kept; the third elements disagree, and the sign of their sum wins."""
    vectors = torch.tensor([[4.0, 0.1, -3.0, 0.2], [2.0, 0.3, 5.0, 0.1]])
    assert_close(ties(vectors, 0.5), torch.tensor([3.0, 0.0, 5.0, 0.0]))
    assert_close(ties(vectors, 1.0), torch.tensor([3.0, 0.2, 5.0, 0.15]))
    assert_close(ties(vectors[:, :1, None], 0.2), torch.tensor([[3.0]]))
    assert_close(ties(torch.tensor([1.0, 3.0]), 0.2), torch.tensor(2.0))  # a weight without dimensions


def test_going_on_in_the_same_direction_costs_nothing() -> None:
    direction = torch.tensor([1.0, 1.0, -2.0, 0.0])
    way = torch.tensor([0.5, -0.5, 0.1, 3.0], requires_grad=True)
    torch.relu(-way * direction).sum().backward()
    assert torch.equal(away_from(direction, way.detach()), way.grad)
    assert torch.equal(way.grad, torch.tensor([0.0, -1.0, 2.0, 0.0]))
