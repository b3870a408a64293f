"""Streaming LDA against the recursion typed out, sample by sample, and the published numbers."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn import StreamingLDAHead

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(60, 5, generator=GENERATOR, dtype=torch.float64)
TARGETS = torch.randint(0, 4, (60,), generator=GENERATOR)


def by_hand(features, targets, classes, skip_first):
    """``(D, D)`` covariance and ``(C, D)`` means, one sample after the other."""
    width = features.shape[1]
    mean, count, sigma = torch.zeros(classes, width).double(), [0] * classes, torch.zeros(width, width).double()
    for t, (x, y) in enumerate(zip(features, targets.tolist(), strict=True)):
        away = x - mean[y]
        delta = torch.zeros_like(sigma) if skip_first and not count[y] else t / (t + 1) * torch.outer(away, away)
        sigma = (t * sigma + delta) / (t + 1)
        mean[y] = (count[y] * mean[y] + x) / (count[y] + 1)
        count[y] += 1
    return sigma, mean


def test_the_worked_numbers():
    head = StreamingLDAHead(3, 2, shrinkage=1e-4, skip_first=False)
    head.update(torch.tensor([[2.0, 0], [0, 0], [0, 2], [0, 4]]), torch.tensor([0, 0, 1, 1]))
    assert_close(head.pooled, torch.diag(torch.tensor([0.5, 17 / 12], dtype=torch.float64)))
    expected = torch.tensor([0.999900, -1.058855], dtype=torch.float64)
    found = head(torch.tensor([[1.0, 1.0]], dtype=torch.float64))[0]
    assert_close(found[:2], expected, rtol=0, atol=1e-6)
    assert found[2] == -torch.inf  # no sample of it


@pytest.mark.parametrize("skip_first", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 60])
def test_batches_give_the_recursion(skip_first, batch):
    head = StreamingLDAHead(5, 5, 0.01, skip_first)
    for rows in torch.arange(60).split(batch):
        padded = torch.cat([rows, rows[:1]])  # a row of another process's share
        head.update(FEATURES[padded] + 0.0, TARGETS[padded], torch.tensor([1.0] * len(rows) + [0.0]))
    sigma, mean = by_hand(FEATURES, TARGETS, 5, skip_first)
    assert_close(head.pooled, sigma, rtol=1e-9, atol=1e-12)
    assert_close(head.means, mean, rtol=1e-9, atol=1e-12)
    inverse = torch.linalg.pinv(0.99 * sigma + 0.01 * torch.eye(5).double())
    scores = FEATURES @ inverse @ mean.T - 0.5 * (mean @ inverse * mean).sum(1)
    assert_close(head(FEATURES)[:, :4], scores[:, :4], rtol=1e-8, atol=1e-9)


def test_the_covariance_depends_on_the_order_and_the_means_do_not():
    heads = [StreamingLDAHead(5, 5) for _ in range(2)]
    for head, order in zip(heads, (torch.arange(60), torch.arange(60).flip(0)), strict=True):
        head.update(FEATURES[order], TARGETS[order])
    assert_close(heads[0].means, heads[1].means, rtol=1e-12, atol=1e-12)
    assert (heads[0].pooled - heads[1].pooled).abs().max() > 1e-3
