from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.orthogonal import gram_schmidt_rows, orthogonality_penalty, orthonormal_rows


def rows_of(count, width=24):
    return torch.randn(count, width, dtype=torch.float64)


def assert_orthonormal(rows, atol=1e-10):
    assert_close(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype), rtol=0, atol=atol)


@pytest.mark.parametrize("draw", [orthonormal_rows, gram_schmidt_rows])
def test_the_first_rows_are_orthonormal(draw):
    assert_orthonormal(draw(rows_of(0), 7))


def test_new_rows_are_orthonormal_and_orthogonal_to_trained_ones():
    old = 3 * rows_of(9)  # neither of unit norm nor orthogonal to one another
    new = orthonormal_rows(old, 6)
    assert_orthonormal(new)
    assert (new @ old.T).abs().max() < 1e-8


@pytest.mark.parametrize("useless", [0.0, 1.0], ids=["zero row", "same row twice"])
def test_dependent_old_rows_do_not_spoil_the_basis(useless):
    old = rows_of(5)
    old = torch.cat([old[:1], useless * old[:1], old[1:]])
    new = orthonormal_rows(old, 4)
    assert_orthonormal(new)
    assert (new @ old.T).abs().max() < 1e-8


def test_dependent_old_rows_use_up_no_direction():
    old = rows_of(20).repeat(2, 1)
    new = orthonormal_rows(old, 4)
    assert_orthonormal(new)
    assert (new @ old.T).abs().max() < 1e-8


@pytest.mark.parametrize(("known", "free"), [(22, 2), (24, 0), (30, 0)])
def test_when_no_direction_is_left_rows_are_random_unit_rows(known, free):
    old = rows_of(known)
    new = orthonormal_rows(old, 5)
    assert_close(new.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert ((new @ old.T).abs().max(dim=1).values < 1e-8).tolist() == [True] * free + [False] * (5 - free)
    assert len(new.unique(dim=0)) == 5


def test_the_released_recipe_is_only_nearly_orthogonal_to_trained_rows():
    torch.manual_seed(0)
    old = gram_schmidt_rows(rows_of(0, 768), 10)
    old = old + 0.05 * torch.randn_like(old) / 768**0.5  # trained a little
    new = gram_schmidt_rows(old, 10)
    assert_close(new.norm(dim=1), torch.ones(10, dtype=torch.float64))
    assert 1e-8 < (new @ old.T).abs().max() < 5e-2


def test_the_released_recipe_subtracts_projections_of_the_raw_draw():
    old = rows_of(4)
    torch.manual_seed(3)
    first, second = gram_schmidt_rows(old, 2)
    torch.manual_seed(3)
    expected = torch.randn(24, dtype=torch.float64)
    expected = expected - sum((expected @ u) / (u @ u) * u for u in old)
    assert_close(first, expected / expected.norm())
    draw = torch.randn(24, dtype=torch.float64)
    expected = draw - sum((draw @ u) / (u @ u) * u for u in [*old, first])
    assert_close(second, expected / expected.norm())


def test_the_dtype_is_that_of_the_old_rows():
    assert (
        orthonormal_rows(rows_of(3).float(), 2).dtype == gram_schmidt_rows(rows_of(3).float(), 2).dtype == torch.float32
    )


def penalty_by_the_formula(rows):
    return ((rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype)) ** 2).mean()


@pytest.mark.parametrize("count", [1, 3, 6])
def test_known_penalties(count):
    eye = torch.eye(count, 8, dtype=torch.float64)
    assert orthogonality_penalty(eye) == 0
    assert orthogonality_penalty(2 * eye).item() == pytest.approx(9 / count)
    assert orthogonality_penalty(0 * eye).item() == pytest.approx(1 / count)


@pytest.mark.parametrize("known", [0, 1, 5])
def test_the_penalty_in_blocks_is_that_of_all_rows(known):
    old, new = rows_of(known), rows_of(4).requires_grad_()
    expected = penalty_by_the_formula(torch.cat([old, new]))
    found = orthogonality_penalty(new, old)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, new), torch.autograd.grad(expected, new))


def test_old_rows_get_no_gradient_and_layers_are_apart():
    old, new = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 4, 8, requires_grad=True)
    found = orthogonality_penalty(new, old)
    found.sum().backward()
    assert old.grad is None
    assert_close(found[1], penalty_by_the_formula(torch.cat([old[1], new[1]])))
