"""Kernel ridge regression: exact fits, the linear case against ridge regression, and where gradients go."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.heads.kernel_ridge import kernel_matrix, kernel_ridge

GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def ridge(value):
    return torch.tensor(value, dtype=torch.float64)


def test_kernels_typed_out():
    a, b = randn(3, 4), randn(2, 4)
    for i in range(3):
        for j in range(2):
            product = float((a[i] * b[j]).sum())
            assert_close(float(kernel_matrix(a, b, "linear")[i, j]), product)
            assert_close(float(kernel_matrix(a, b, "polynomial")[i, j]), (product + 1) ** 3)
            expected = float(torch.exp(-0.25 * (a[i] - b[j]).abs().sum()))
            assert_close(float(kernel_matrix(a, b, "rbf")[i, j]), expected)


@pytest.mark.parametrize("kernel", ["rbf", "polynomial"])
def test_without_ridge_known_points_are_met(kernel):
    support, targets = randn(9, 4), randn(9, 3)
    assert_close(kernel_ridge(support, support, targets, ridge(1e-9), kernel), targets, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", ["rbf", "polynomial", "linear"])
def test_the_order_of_the_support_does_not_matter(kernel):
    support, targets, x, order = randn(9, 4), randn(9, 3), randn(5, 4), torch.randperm(9, generator=GENERATOR)
    found = kernel_ridge(x, support[order], targets[order], ridge(0.1), kernel)
    assert_close(found, kernel_ridge(x, support, targets, ridge(0.1), kernel))


def test_a_linear_kernel_is_ridge_regression():
    support, targets, x = randn(9, 4), randn(9, 3), randn(5, 4)
    weights = torch.linalg.solve(support.T @ support + 0.3 * torch.eye(4), support.T @ targets)
    assert_close(kernel_ridge(x, support, targets, ridge(0.3), "linear"), x @ weights)


def test_gradients_pass_through_both_kernels_and_the_ridge():
    inputs = [tensor.requires_grad_() for tensor in (randn(3, 4), randn(5, 4), ridge(0.2))]
    x, support, strength = inputs
    targets = randn(5, 2)

    def answer(x, support, strength):
        return kernel_ridge(x, support, targets, strength, "rbf")

    assert torch.autograd.gradcheck(answer, inputs)
    through = torch.autograd.grad(answer(x.detach(), support, strength).sum(), support)[0]
    assert bool(through.any(1).all())
