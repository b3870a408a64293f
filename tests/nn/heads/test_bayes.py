"""Bayesian prototypes against dense Gaussians, sample by sample."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from lightning_cl.nn.heads.bayes import BayesianPrototypes

NOISE, CONCENTRATION = 0.3, 2.0


def posterior(x: torch.Tensor, y: torch.Tensor, num_classes: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Means and covariances by the update of one sample after the other, with dense matrices."""
    means, covariances = [], []
    for label in range(num_classes):
        mean, covariance = torch.zeros(x.shape[1]).double(), torch.eye(x.shape[1]).double()
        for sample in x[y == label]:
            gain = covariance @ torch.linalg.inv(covariance + NOISE * torch.eye(x.shape[1]).double())
            mean, covariance = mean + gain @ (sample - mean), covariance - gain @ covariance
        means.append(mean)
        covariances.append(covariance)
    return means, covariances


def test_answers_are_those_of_dense_gaussians_in_any_order():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 4, generator=generator).double(), torch.randint(0, 3, (20,), generator=generator)
    head, other = (BayesianPrototypes(4, 4, NOISE, CONCENTRATION) for _ in range(2))
    for rows in torch.arange(20).split(6):
        head.add(head.sums(x[rows], y[rows]))
    other.add(other.sums(x.flip(0), y.flip(0)))
    before = {name: b.clone() for name, b in head.named_buffers()}
    found = head(x)
    means, covariances = posterior(x, y, 4)
    shares = (torch.bincount(y, minlength=4) + CONCENTRATION).double()
    expected = torch.stack(
        [
            MultivariateNormal(m, c + NOISE * torch.eye(4).double()).log_prob(x) + torch.log(a / shares.sum())
            for m, c, a in zip(means, covariances, shares, strict=True)
        ],
        dim=1,
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other(x), found)
    assert all(torch.equal(before[name], b) for name, b in head.named_buffers())  # an answer changes nothing


def test_with_much_data_of_every_class_it_is_the_nearest_mean():
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(3, 5, generator=generator).double()
    head = BayesianPrototypes(3, 5, 0.05, 1.0)
    head.add(torch.cat([means, torch.ones(3, 1)], 1) * 1e9)
    x = torch.randn(50, 5, generator=generator).double()
    assert torch.equal(head(x).argmax(1), torch.cdist(x, means).argmin(1))


def test_means_taken_anew_forget_what_was_summed_before_and_not_how_often_a_class_came():
    head = BayesianPrototypes(2, 2, NOISE, CONCENTRATION)
    head.add(torch.tensor([[8.0, 8.0, 4.0], [1.0, 1.0, 1.0]]).double())
    kept = head.natural[1].clone()
    head.replace(torch.tensor([[2.0, 0.0, 2.0], [0.0, 0.0, 0.0]]).double())
    assert head.natural[0].tolist() == pytest.approx([2.0 / NOISE, 0.0])
    assert head.precision.tolist() == pytest.approx([2 / NOISE, 1 / NOISE])
    assert torch.equal(head.natural[1], kept)
    assert head.counts.tolist() == [4.0, 1.0]
