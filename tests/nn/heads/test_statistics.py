"""Statistics against numpy class by class, in any order and batches; draws from the Gaussians against their moments."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn import ClassStatistics

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(60, 4, generator=GENERATOR) + 5
TARGETS = torch.tensor([0, 1, 3]).repeat(20)


def filled(kind, order=None, batch=60):
    statistics = ClassStatistics(5, 4, kind)
    order = torch.arange(60) if order is None else order
    for rows in order.split(batch):
        statistics.update(FEATURES[rows], TARGETS[rows])
    return statistics


def rows_of(label):
    return FEATURES[label == TARGETS].double().numpy()


def test_means_and_covariances_against_numpy():
    each, diagonal, shared = (filled(kind) for kind in ("class", "diagonal", "shared"))
    scatter = np.zeros((4, 4))
    for label in (0, 1, 3):
        rows = rows_of(label)
        expected = torch.from_numpy(np.cov(rows.T))
        assert_close(each.means[label], torch.from_numpy(rows.mean(0)))
        assert_close(each.covariance()[label], expected)
        assert_close(diagonal.covariance()[label], expected.diagonal())
        scatter += np.cov(rows.T) * (len(rows) - 1)
    assert_close(shared.covariance(), torch.from_numpy(scatter / (60 - 3)))
    assert each.counts.tolist() == [20, 20, 0, 20, 0]
    assert (each.means[2] == 0).all()
    assert_close(each.covariance([3, 0]), each.covariance()[[3, 0]])


@pytest.mark.parametrize("kind", ["none", "diagonal", "shared", "class"])
@pytest.mark.parametrize("batch", [1, 7, 60])
def test_any_order_and_batches(kind, batch):
    whole, other = filled(kind), filled(kind, torch.randperm(60, generator=GENERATOR), batch)
    for name, value in whole.state_dict().items():
        assert_close(other.state_dict()[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["diagonal", "shared", "class"])
def test_rows_of_weight_zero_do_not_count(kind):
    weighted = ClassStatistics(5, 4, kind)
    weighted.update(torch.cat([FEATURES, FEATURES[:9] + 3]), torch.cat([TARGETS, TARGETS[:9]]), torch.arange(69) < 60)
    for name, value in filled(kind).state_dict().items():
        assert_close(weighted.state_dict()[name], value)


@pytest.mark.parametrize("kind", ["diagonal", "class"])
def test_a_class_of_one_sample_has_the_mean_covariance(kind):
    statistics = filled(kind)
    before = statistics.covariance([0, 1, 3])
    statistics.update(torch.ones(1, 4), torch.tensor([2]))
    assert_close(statistics.covariance([0, 1, 2, 3])[2], before.mean(0))
    alone = ClassStatistics(2, 4, kind)
    alone.update(torch.ones(1, 4), torch.tensor([0]))
    assert (alone.covariance() == 0).all()


@pytest.mark.parametrize("kind", ["diagonal", "shared", "class"])
def test_draws_have_the_moments_of_the_classes(kind):
    statistics = filled(kind)
    gaussians = statistics.gaussians([3, 0], jitter=1e-9)
    features, places = gaussians.sample(40000, torch.Generator().manual_seed(1))
    assert features.dtype == torch.float32
    for place, label in enumerate((3, 0)):
        rows = features[places == place].double()
        assert len(rows) == 40000
        assert_close(rows.mean(0), statistics.means[label], rtol=0, atol=0.03)
        known = statistics.covariance([3, 0])
        expected = known if kind == "shared" else known[place]
        if kind == "diagonal":
            expected = torch.diag(expected)
        assert_close(torch.cov(rows.T), expected, rtol=0, atol=0.06)
    again, _ = gaussians.sample(40000, torch.Generator().manual_seed(1))
    assert torch.equal(features, again)
    moved, _ = dataclasses.replace(gaussians, mean=gaussians.mean * 2).sample(5, torch.Generator().manual_seed(1))
    plain, _ = gaussians.sample(5, torch.Generator().manual_seed(1))
    assert_close(moved - plain, gaussians.mean.float().repeat_interleave(5, 0))


def test_jitter_makes_few_samples_enough():
    statistics = ClassStatistics(1, 4, "class")
    statistics.update(FEATURES[:2], torch.zeros(2))
    statistics.gaussians([0], jitter=1e-4)
    with pytest.raises(ValueError, match=r"not positive definite with `jitter` 0.0.*give a larger `jitter`"):
        statistics.gaussians([0], jitter=0.0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="`covariance` is 'full'; give"):
        ClassStatistics(2, 2, "full")
    with pytest.raises(ValueError, match='build the statistics with `covariance="shared"`'):
        filled("none").covariance()
    with pytest.raises(ValueError, match=r"the classes \[2\] have no samples yet"):
        filled("class").gaussians([0, 2])


def test_what_grows_with_the_stream():
    assert ClassStatistics(2, 2, "shared").growing == ("sums", "counts")
    assert ClassStatistics(2, 2, "class").growing == ("sums", "counts", "products")
