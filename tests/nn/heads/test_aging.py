"""SLCA's ageing Gaussians and its loss against worked numbers and sums typed out."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lightning_cl.nn.heads import Gaussians
from lightning_cl.nn.heads.aging import AgingGaussians, age_share, normalized_cross_entropy
from lightning_cl.nn.losses import reverse_cross_entropy, self_contrast


def test_means_of_ten_tasks_at_the_last():
    assert_close(age_share(torch.arange(10), 9), torch.linspace(0.91, 1.0, 10, dtype=torch.float64))


def test_the_worked_numbers_of_the_normalised_loss():
    tasks, label = torch.tensor([0, 0, 1, 1]), torch.tensor([3])
    known = normalized_cross_entropy(torch.tensor([[3.0, 4.0, 0.0, 5.0]]), label, tasks, 0.1)
    assert_close(known.item(), 0.142971, rtol=0, atol=1e-5)
    short = normalized_cross_entropy(torch.tensor([[3.0, 4.0, 0.0, 1.0]]), label, tasks, 0.1)
    assert_close(short.item(), 10.035098, rtol=0, atol=1e-4)


def test_tasks_in_any_order_and_the_gradient_goes_through_the_lengths():
    z = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tasks, labels = torch.tensor([7, 2, 7, 2, 2]), torch.tensor([0, 1, 2, 4])
    loss = normalized_cross_entropy(z, labels, tasks, 0.5)
    blocks = [[0, 2], [1, 3, 4]]
    each = [sum((row[b].norm() + 1e-7) for b in blocks) / 2 for row in z]
    scaled = [row / (n * 0.5) for row, n in zip(z, each, strict=True)]
    expected = -sum((s - s.logsumexp(0))[y] for s, y in zip(scaled, labels, strict=True)) / 4
    assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, z)
    (theirs,) = torch.autograd.grad(expected, z)
    assert_close(ours, theirs)


def test_logits_of_zero_have_a_gradient():
    z = torch.zeros(1, 4, requires_grad=True)
    normalized_cross_entropy(z, torch.tensor([0]), torch.tensor([0, 0, 1, 1]), 0.1).backward()
    assert bool(z.grad.isfinite().all())


def test_draws_of_old_classes_are_divided_by_their_age():
    mean, factor = torch.ones(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    aged = AgingGaussians((0, 1), mean, factor, torch.tensor([5, 0]))
    features, places = aged.sample(2000, torch.Generator().manual_seed(0))
    old = 1 / features[places == 0]
    assert_close(features[places == 1], torch.ones(2000, 3))
    assert float(old.min()) >= 1 + 5 * 0.01 - 1e-5
    assert float(old.max()) <= 1 + 5 * 0.03 + 1e-5
    assert_close(old.mean().item(), 1.1, rtol=0, atol=2e-3)
    assert isinstance(aged, Gaussians)


def test_reverse_cross_entropy_of_sure_answers():
    allowed, labels = torch.tensor([True, True, False]), torch.tensor([0])
    right = reverse_cross_entropy(torch.tensor([[90.0, 0.0, 500.0]]), labels, allowed)
    assert_close(right.item(), 0.0, rtol=0, atol=1e-5)
    wrong = reverse_cross_entropy(torch.tensor([[0.0, 90.0, 500.0]]), labels, allowed)
    assert_close(wrong.item(), -math.log(1e-4), rtol=1e-6, atol=0)  # 9.2103
    even = reverse_cross_entropy(torch.tensor([[1.0, 1.0, 0.0]]), labels, allowed)
    assert_close(even.item(), -math.log(1e-4) / 2, rtol=1e-6, atol=0)


def test_the_worked_number_of_the_contrast():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert_close(self_contrast(rows).item(), 0.702346, rtol=0, atol=1e-6)
