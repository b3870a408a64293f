"""Subspaces that follow gradients, against singular values and Adam's formula typed out."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.gradient_subspace import GradientSubspace, shrunk_sketch


def gradients(count, outputs=6, inputs=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, outputs, inputs, dtype=torch.float64, generator=generator)


def test_the_worked_numbers_of_the_sketch():
    """Singular values (3, 2, 1) kept in two columns; squares (16, 4, 1, 0.25), of which two hold less than 0.98."""
    sketch = shrunk_sketch(torch.tensor([9.0, 4.0, 1.0]), torch.eye(3), 2)
    assert_close(sketch, torch.tensor([[2.828427, 0.0], [0.0, 1.732051], [0.0, 0.0]]), rtol=0, atol=1e-6)
    space = GradientSubspace(5, 4, 2, 4)
    space.sketch[:4] = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    assert space.end_task(0.98) == 2
    assert_close(space.memory.basis.abs(), torch.eye(5)[:, :2])
    assert not space.sketch.any()
    assert space.end_task(0.98) == 0  # a task without a step


@pytest.mark.parametrize("side", ["out", "in"])
def test_an_optimiser_of_the_coordinates_is_adam_in_the_subspace(side):
    """``g = P^T G'``, Adam's moments of ``g``, ``W - lr P adam(g)``; the second task leaves the first one's space."""
    given = gradients(8)
    space = GradientSubspace(6, 5, 2, 3, side).double()
    optimizer = torch.optim.Adam([space.reduced], lr=0.1, weight_decay=0.0)
    weight, expected = torch.zeros(6, 5).double(), torch.zeros(6, 5).double()
    energies = torch.zeros(6 if side == "out" else 5, 3).double()
    basis = torch.zeros(len(energies), 0, dtype=torch.float64)
    moment = square = torch.zeros(2, 5 if side == "out" else 6, dtype=torch.float64)
    for index, gradient in enumerate(given):
        if index == 5:
            left, values, _ = torch.linalg.svd(energies, full_matrices=False)
            shares = values.square().cumsum(0) / values.square().sum()
            basis = left[:, : int((shares < 0.7).sum())]
            assert space.end_task(0.7) == basis.shape[1] > 0
            energies = torch.zeros_like(energies)
        space.follow(gradient, 0.9)
        space.reduced.grad = space.reduce(gradient)
        optimizer.step()
        weight += space.step()
        assert not space.reduced.any()

        g = gradient if side == "out" else gradient.T
        g = g - basis @ basis.T @ g
        left, values, _ = torch.linalg.svd(g, full_matrices=False)
        p = left[:, :2] * torch.sign(left[:, :2].gather(0, left[:, :2].abs().argmax(0, keepdim=True)))
        q = left[:, :3] * (values[:3] ** 2 - values[3] ** 2).clamp_min(0).sqrt()
        both = torch.linalg.svd(torch.cat([0.9 * energies, q], dim=1), full_matrices=False)
        energies = both.U[:, :3] * (both.S[:3] ** 2 - both.S[3] ** 2).clamp_min(0).sqrt()
        assert_close(space.sketch @ space.sketch.T, energies @ energies.T)
        low = p.T @ g
        moment, square = 0.9 * moment + 0.1 * low, 0.999 * square + 0.001 * low**2
        step = moment / (1 - 0.9 ** (index + 1)) / ((square / (1 - 0.999 ** (index + 1))).sqrt() + 1e-8)
        change = -0.1 * p @ step
        expected += change if side == "out" else change.T
        assert_close(weight, expected)


@pytest.mark.parametrize("side", ["out", "in"])
def test_no_step_leaves_the_subspace_or_enters_an_earlier_one(side):
    space = GradientSubspace(6, 5, 4, 6, side)
    optimizer = torch.optim.AdamW([space.reduced], lr=0.1, weight_decay=0.5)

    def train(given, refresh):
        weight = torch.zeros(6, 5)
        for index, gradient in enumerate(given.float()):
            if index % refresh == 0:
                space.follow(gradient, 1.0)
            space.reduced.grad = space.reduce(gradient)
            optimizer.step()
            weight += space.step()
        return weight if side == "out" else weight.T

    train(gradients(4), 1)
    space.end_task(0.8)
    basis = space.memory.basis.clone()
    assert 2 <= basis.shape[1] < 5
    once = train(gradients(6, seed=1), 100)
    assert float((basis.T @ once).norm() / once.norm()) < 1e-5
    assert int(torch.linalg.matrix_rank(once, rtol=1e-5)) <= 4
    often = train(gradients(6, seed=2), 1)
    assert float(often.norm()) > 0.1
    assert float((basis.T @ often).norm() / often.norm()) < 1e-5
    space.memory.extend(torch.eye(len(basis)), 1.0, crossing=True)  # nothing is left
    assert not train(gradients(3, seed=3), 1).any()


def test_a_gradient_that_is_not_finite_changes_nothing():
    space = GradientSubspace(6, 5, 2, 3)
    space.follow(gradients(1)[0].float(), 1.0)
    before = space.directions.clone(), space.sketch.clone()
    space.follow(torch.full((6, 5), torch.inf), 1.0)
    assert torch.equal(space.directions, before[0])
    assert torch.equal(space.sketch, before[1])
