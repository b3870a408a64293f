"""The Mahalanobis classifier against the published numbers, NumPy, and itself in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn import MahalanobisHead
from lightning_cl.nn.heads.mahalanobis import correlation, precision, shrunk

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.rand(90, 6, generator=GENERATOR, dtype=torch.float64) ** 2
TARGETS = torch.randint(0, 4, (90,), generator=GENERATOR)


def test_the_worked_numbers():
    matrix = shrunk(torch.tensor([[4.0, 1.0], [1.0, 1.0]]), 1.0, 0.0)
    assert_close(matrix, torch.tensor([[6.5, 1.0], [1.0, 3.5]]))
    inverse = precision(correlation(matrix))
    assert_close(correlation(matrix)[0, 1].item(), 0.209657, rtol=0, atol=1e-6)
    for away, squared in (([1.0, 0.0], 1.045977), ([0.6, 0.8], 0.835452)):
        x = torch.tensor(away)
        assert_close((x @ inverse @ x).item(), squared, rtol=0, atol=1e-5)
    three = torch.tensor([[4.0, 1.0, 0.0], [1.0, 1.0, 0.5], [0.0, 0.5, 2.0]])
    assert_close(correlation(three)[0, 1].item(), 0.5)
    off = shrunk(three, 0.0, 2.0)  # the mean of the rest is 0.5
    assert_close(off, three + 1.0 - torch.eye(3))


def test_a_matrix_without_inverse_gets_the_pseudo_inverse():
    matrix = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert_close(precision(matrix), torch.full((2, 2), 0.25, dtype=torch.float64))


def numpy_logits(kind, shrinkage, off, tukey, normalize):
    """``(N, C)`` from the formulas, with NumPy's covariances."""

    def unit(a):
        return a / np.linalg.norm(a, axis=-1, keepdims=True)

    x, y = FEATURES.numpy() ** tukey, TARGETS.numpy()
    x = unit(x) if normalize else x
    own = [np.cov(x[y == c].T) for c in range(4)]
    sizes = [(y == c).sum() - 1 for c in range(4)]
    pooled = sum(n * c for n, c in zip(sizes, own, strict=True)) / sum(sizes)
    logits = []
    for c in range(4):
        cov = {"class": own[c], "shared": pooled, "diagonal": np.diag(np.diag(own[c]))}[kind]
        diagonal, rest = np.diag(cov).mean(), cov[~np.eye(6, dtype=bool)].mean()
        cov = cov + shrinkage * diagonal * np.eye(6) + off * rest * (1 - np.eye(6))
        if kind == "diagonal":
            matrix = cov / np.diag(cov).mean()
        else:
            matrix = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        mean = x[y == c].mean(0)
        away = x - mean if normalize else unit(x) - unit(mean)
        logits.append(-np.einsum("nd,de,ne->n", away, np.linalg.inv(matrix), away))
    return torch.from_numpy(np.stack(logits, 1))


@pytest.mark.parametrize("kind", ["class", "shared", "diagonal"])
@pytest.mark.parametrize("options", [(1.0, 0.0, 1.0, True), (1.0, 1.0, 0.5, False)])
def test_against_numpy_in_any_order_and_batches(kind, options):
    names = ("shrinkage", "off_diagonal", "tukey", "normalize")
    expected = numpy_logits(kind, *options)
    for batch, order in ((90, torch.arange(90)), (1, torch.randperm(90, generator=GENERATOR))):
        head = MahalanobisHead(5, 6, kind, **dict(zip(names, options, strict=True)))
        for rows in order.split(batch):
            head.update(FEATURES[rows], TARGETS[rows])
            if batch > 1 or rows.item() % 30 == 0:
                head(FEATURES[:2])  # answers in between leave nothing behind
        logits = head(FEATURES)
        assert_close(logits[:, :4], expected, rtol=1e-9, atol=1e-9)
        assert (logits[:, 4] == -torch.inf).all()


def test_a_class_of_one_sample_has_the_mean_covariance_of_the_others():
    head = MahalanobisHead(5, 6)
    head.update(FEATURES, TARGETS)
    head.update(FEATURES[:1], torch.tensor([4]))
    covariance = head.covariance([0, 1, 2, 3]).mean(0)
    away = torch.nn.functional.normalize(FEATURES, dim=1)[3:4] - head.means[4]
    expected = -(away @ precision(correlation(shrunk(covariance, 1.0, 0.0))) @ away.T)
    assert_close(head(FEATURES[3:4])[:, 4:], expected)
    only = MahalanobisHead(5, 6)
    only.update(FEATURES[:1], torch.tensor([4]))
    assert_close(only(FEATURES[3:4])[0, 4], -away.square().sum())  # nothing is known: Euclidean


def test_the_state_brings_the_answers_back():
    head, fresh = (MahalanobisHead(5, 6) for _ in range(2))
    head.update(FEATURES, TARGETS)
    fresh.update(FEATURES.flip(1), TARGETS)
    fresh(FEATURES)
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(fresh(FEATURES), head(FEATURES))
