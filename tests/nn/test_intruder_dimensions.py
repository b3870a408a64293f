"""Intruder dimensions: the example of the specification, repeated singular values, and the repair."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.nn.intruder_dimensions import as_matrices, find_intruders, low_rank, shrunk


@pytest.fixture
def before() -> Tensor:
    return torch.diag(torch.arange(64.0, 0.0, -1.0).double())


def test_one_large_new_direction_is_found_and_shrunk(before: Tensor) -> None:
    """W = diag(64, ..., 1) + 1000 u u^T with u = (1/8, ..., 1/8)."""
    u = torch.full((64,), 1 / 8).double()
    after = before + 1000 * torch.outer(u, u)
    found = find_intruders(before, after)
    assert found.similarity[0].item() == pytest.approx(0.1290, abs=1e-4)
    assert found.similarity[1:].min().item() == pytest.approx(0.8277, abs=1e-4)
    assert found.values.tolist() == pytest.approx([1032.84], abs=0.01)
    assert torch.linalg.matrix_norm(shrunk(after, found, 0.75), 2).item() == pytest.approx(774.63, abs=0.01)
    assert torch.equal(shrunk(after, found, 1.0), after)
    without = torch.linalg.svdvals(shrunk(after, found, 0.0))
    assert_close(without[:-1], torch.linalg.svdvals(after)[1:])
    assert without[-1].item() == pytest.approx(0, abs=1e-9)


def test_a_matrix_has_no_intruders_of_its_own(before: Tensor) -> None:
    torch.manual_seed(0)
    for matrix in (before, torch.randn(7, 12).double(), torch.zeros(4, 3), torch.eye(5)):
        found = find_intruders(matrix, matrix)
        assert len(found.values) == 0
        assert torch.equal(shrunk(matrix, found, 0.5), matrix)


def test_equal_singular_values_are_one_space() -> None:
    """The identity turned: each single vector is like none of the old basis, the space is the same."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 40).double())[0]
    after = basis @ torch.diag(torch.linspace(2, 1, 40).double()) @ basis.T
    assert len(find_intruders(torch.eye(40).double(), after).values) == 0
    apart = torch.diag(torch.linspace(1.0, 1.1, 40).double())  # the same basis, no two values equal
    assert len(find_intruders(apart, after, threshold=0.7).values) > 0


def test_a_direction_that_was_not_there_is_an_intruder() -> None:
    before = torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0]))
    after = torch.diag(torch.tensor([3.0, 2.0, 5.0, 0.0]))
    found = find_intruders(before, after)
    assert found.similarity.tolist() == pytest.approx([0, 1, 1])
    assert_close(shrunk(after, found, 0.2), torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0])))


def test_weights_as_matrices() -> None:
    fused = torch.arange(48.0).view(12, 4)
    assert [part.tolist() for part in as_matrices(fused, 3)] == [fused[i : i + 4].tolist() for i in (0, 4, 8)]
    kernel = torch.randn(6, 2, 3, 3)
    assert torch.equal(as_matrices(kernel)[0], kernel.flatten(1))
    with pytest.raises(ValueError, match="12 rows are no 5 equal blocks"):
        as_matrices(fused, 5)


def test_the_best_update_of_a_rank() -> None:
    torch.manual_seed(0)
    delta = torch.randn(6, 3).double() @ torch.randn(3, 9).double()
    down, up, missed = low_rank(delta, 3)
    assert_close(up @ down, delta)
    assert missed == pytest.approx(0, abs=1e-7)
    assert_close((down**2).sum(1), (up**2).sum(0))  # shared out evenly
    down, up, missed = low_rank(delta, 2)
    assert missed == pytest.approx(((delta - up @ down).norm() / delta.norm()).item())
    assert missed > 0.01
    assert low_rank(delta, 20)[0].shape == (20, 9)
    assert low_rank(torch.zeros(2, 2), 1)[2] == 0
