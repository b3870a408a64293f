"""The bound of OpenVAE: its closed forms, Weibull fits that solve their equations, and draws that are within it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_cl.nn.open_set import AggregatePosteriorBound, accepted_latents, latent_divergence, weibull_of


def clouds(spread: float = 0.1, count: int = 200) -> tuple[Tensor, Tensor]:
    """Features of two classes around (3, 0) and (0, 3)."""
    labels = torch.arange(2).repeat_interleave(count)
    noise = torch.randn(2 * count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 3 * torch.eye(2, dtype=torch.float64)[labels] + spread * noise, labels


def fitted(cosine: bool = True, classes: int = 2) -> AggregatePosteriorBound:
    features, labels = clouds()
    bound = AggregatePosteriorBound(classes, 2, cosine=cosine)
    bound.fit(features, labels, torch.ones(len(labels), dtype=torch.bool))
    return bound


def test_divergence_of_the_specification() -> None:
    assert float(latent_divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.5]]))) == pytest.approx(
        0.409074, abs=1e-6
    )
    assert float(latent_divergence(torch.zeros(3, 4), torch.ones(3, 4))) == pytest.approx(0, abs=1e-6)


def test_the_fit_solves_the_equations_of_maximum_likelihood() -> None:
    tail = torch.from_numpy(np.random.default_rng(0).weibull(1.7, 400) * 0.3 + 2)
    shift, scale, shape = weibull_of(tail)
    x = tail.numpy() - shift
    x = x[x > 0]
    powered = x**shape
    assert (powered * np.log(x)).sum() / powered.sum() - 1 / shape == pytest.approx(np.log(x).mean(), abs=2e-3)
    assert scale == pytest.approx(powered.mean() ** (1 / shape), rel=1e-3)
    assert shape == pytest.approx(1.7, rel=0.15)


@pytest.mark.parametrize("cosine", [True, False])
def test_the_mean_is_inside_and_the_distribution_function_rises(cosine: bool) -> None:
    bound = fitted(cosine)
    assert float(bound.outside(bound.means).diagonal().max()) == 0
    assert bound.accepts(bound.means, torch.arange(2)).all()
    angles = torch.linspace(0, math.pi / 2, 50, dtype=torch.float64)
    path = 3 * torch.stack([angles.cos(), angles.sin()], 1)  # from one class to the other
    outside = bound.outside(path)[:, 0]
    assert (outside.diff() >= 0).all() if cosine else (outside[-1] > outside[0])
    assert outside[0] < 0.01 < 0.99 < outside[-1]


def test_unknown_inputs_lie_outside_of_every_class() -> None:
    bound, (features, _) = fitted(), clouds()
    unknown = torch.tensor([[-3.0, -3.0], [2.0, 2.0]])
    assert (bound.outlier_probability(unknown) > 0.99).all()
    assert bound.outlier_probability(features).lt(0.95).double().mean() > 0.97  # the tail is 5 % of the samples


def test_in_a_module_of_single_precision_it_answers_alike() -> None:
    bound, single, (features, _) = fitted(), fitted().float(), clouds()
    torch.testing.assert_close(single.outside(features.float()), bound.outside(features), atol=0.02, rtol=0)


def test_what_was_classified_wrong_does_not_count_and_a_class_without_samples_has_no_bound() -> None:
    features, labels = clouds()
    bound, right = AggregatePosteriorBound(3, 2), torch.ones(len(labels), dtype=torch.bool)
    strange = torch.cat([features, torch.full((5, 2), -9.0, dtype=torch.float64)])
    bound.fit(strange, torch.cat([labels, torch.tensor([0] * 4 + [2])]), torch.cat([right, torch.zeros(5).bool()]))
    assert bound.means[:2].numpy() == pytest.approx(fitted().means.numpy())
    assert (bound.outside(features)[:, 2] == 1).all()


def test_a_class_of_equal_samples_is_a_step() -> None:
    bound = AggregatePosteriorBound(1, 2)
    bound.fit(torch.ones(4, 2), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool))
    assert bound.outside(torch.tensor([[5.0, 5.0], [1.0, 1.1]]))[:, 0].tolist() == [0, 1]
    copy = AggregatePosteriorBound(1, 2)
    copy.load_state_dict(bound.state_dict())
    assert torch.equal(copy.outside(torch.ones(1, 2)), bound.outside(torch.ones(1, 2)))


def test_accepted_latents_are_answered_with_their_label_and_are_within_its_bound() -> None:
    bound, head, quota = fitted(), torch.nn.Linear(2, 2, bias=False), torch.tensor([7, 3])
    head.weight.data = torch.eye(2)
    latents, labels = accepted_latents(bound, head, quota, torch.Generator().manual_seed(0))
    assert labels.bincount().tolist() == [7, 3]
    assert torch.equal(head(latents).argmax(1), labels)
    assert bound.accepts(latents, labels).all()
    again, _ = accepted_latents(bound, head, quota, torch.Generator().manual_seed(0))
    assert torch.equal(latents, again)
    few, _ = accepted_latents(bound, head, quota, torch.Generator().manual_seed(0), rounds=0)
    assert few.shape == (0, 2)


def test_a_tail_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`tail` is 0"):
        AggregatePosteriorBound(2, 2, tail=0)
