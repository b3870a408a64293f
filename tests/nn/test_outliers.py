from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn import energy, outlier_regularizer, synthesize_outliers
from lightning_cl.nn.outliers import kth_neighbour_distance


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def clustered(count, width=768, spread=0.01):
    """Features of a task: around one direction, long."""
    return 20 * F.normalize(draw(1, width), dim=1) + spread * draw(count, width, seed=1)


# ---------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_kth_distance_is_that_of_a_sort(k):
    points, index = draw(5, 4), draw(7, 4, seed=1)
    expected = [sorted((p - row).square().sum().item() for row in index)[k - 1] for p in points]
    assert_close(
        kth_neighbour_distance(points, index, k), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_a_point_is_its_own_first_neighbour():
    index = draw(6, 4)
    assert_close(kth_neighbour_distance(index, index, 1), torch.zeros(6).double(), rtol=0, atol=1e-12)
    assert kth_neighbour_distance(index, index, 2).min() > 0.01


def test_blocks_do_not_show():
    points, index = draw(9000, 3), draw(20, 3, seed=1)
    parts = [kth_neighbour_distance(part, index, 4) for part in points.split(1000)]
    assert_close(kth_neighbour_distance(points, index, 4), torch.cat(parts), rtol=0, atol=1e-12)


def test_half_precision_and_autocast_do_not_blur_distances():
    points, index = F.normalize(draw(40, 96).float(), dim=1), F.normalize(draw(60, 96, seed=1).float(), dim=1)
    expected = kth_neighbour_distance(points, index, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kth_neighbour_distance(points, index, 5), expected)
    halves = points.bfloat16(), index.bfloat16()
    assert torch.equal(kth_neighbour_distance(*halves, 5), kth_neighbour_distance(*(x.float() for x in halves), 5))


def test_fewer_rows_than_neighbours():
    with pytest.raises(
        ValueError, match=r"49 training samples, fewer than the 50 neighbours .* lower `neighbours` to at"
    ):
        kth_neighbour_distance(draw(3, 4), draw(49, 4), 50)


# ---------------------------------------------------------------------- synthesis


def outliers_by_the_book(features, num_classes, mode, neighbours, boundary_points, draws, noise, per_class, eps):
    """Typed from the description: one candidate at a time, and in "origin" mode all copies of it too."""
    unit = features / features.norm(dim=1, keepdim=True)

    def score(z):
        return sorted((z - u).square().sum().item() for u in unit)[neighbours - 1]

    boundary = sorted(range(len(unit)), key=lambda i: -score(unit[i]))[:boundary_points]
    candidates = [(features[i] if mode == "boundary" else 0) + noise * e for i in boundary for e in eps]
    ranked = sorted(candidates, key=lambda z: -score(z))
    return torch.stack(ranked[: min(boundary_points * draws, per_class * num_classes)])


@pytest.mark.parametrize("mode", ["boundary", "origin"])
@pytest.mark.parametrize("per_class", [3, 6, 100])
def test_outliers_are_those_by_the_book(mode, per_class):
    settings = {"neighbours": 3, "boundary_points": 4, "draws": 6, "noise": 0.5, "per_class": per_class}
    features = draw(12, 5, seed=1)
    eps = torch.randn(6, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    expected = outliers_by_the_book(features, 2, mode, eps=eps, **settings)
    found = synthesize_outliers(features, 2, mode, **settings, generator=torch.Generator().manual_seed(9))
    assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_released_mode_makes_few_distinct_short_vectors():
    found = synthesize_outliers(clustered(200), 20, "origin", generator=torch.Generator().manual_seed(0))
    assert found.shape == (800, 768)
    distinct, counts = found.unique(dim=0, return_counts=True)
    assert len(distinct) == 16
    assert set(counts.tolist()) == {50}
    norm = found.norm(dim=1).mean().item()
    assert 0.1 * math.sqrt(768) < norm < 3.0  # the furthest from the features are the longest


@pytest.mark.parametrize(("num_classes", "distinct"), [(10, 8), (40, 32)])
def test_the_number_of_distinct_vectors_follows_the_classes(num_classes, distinct):
    found = synthesize_outliers(clustered(60, width=16), num_classes, "origin")
    assert len(found.unique(dim=0)) == distinct


def test_the_described_mode_stays_near_boundary_features():
    features = clustered(200, spread=1.0)
    found = synthesize_outliers(features, 20, "boundary", generator=torch.Generator().manual_seed(0))
    assert found.shape == (800, 768)
    assert len(found.unique(dim=0)) == 800
    distance, nearest = torch.cdist(found, features).min(dim=1)
    assert 0.8 * 0.1 * math.sqrt(768) < distance.min() < distance.max() < 1.2 * 0.1 * math.sqrt(768)
    assert len(nearest.unique()) <= 50


def test_the_far_feature_is_a_boundary_feature():
    features = clustered(60, width=16)
    features[17] = 20 * F.normalize(draw(1, 16, seed=5), dim=1)
    found = synthesize_outliers(features, 1, "boundary", 50, boundary_points=3, draws=8, noise=1e-6, per_class=24)
    near = torch.cdist(found, features).argmin(dim=1)
    assert (near == 17).sum() == 8
    assert near[:8].tolist() == [17] * 8  # the furthest come first


@pytest.mark.parametrize("mode", ["boundary", "origin"])
def test_outliers_come_in_descending_order_of_distance(mode):
    features = draw(80, 16)
    found = synthesize_outliers(features, 5, mode, noise=1.0)
    scores = kth_neighbour_distance(found, F.normalize(features, dim=1), 50)
    assert (scores.diff() <= 1e-9).all()


def test_draws_depend_on_the_generator_alone():
    features = draw(60, 8)
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(made))
        before = torch.get_rng_state()
        made.append(synthesize_outliers(features, 2, generator=torch.Generator().manual_seed(seed)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "centre"}, "`mode` is 'centre'; give \"boundary\""),
        ({"neighbours": 41}, "40 training samples, fewer than the 41 neighbours"),
        ({"boundary_points": 41}, "40 training samples, fewer than `boundary_points=41`; lower it"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        synthesize_outliers(draw(40, 4), 2, **{"mode": "boundary", "neighbours": 5, "boundary_points": 9, **arguments})


# ---------------------------------------------------------------------- the regulariser


def test_energy_is_minus_the_log_of_the_summed_exponentials():
    assert_close(energy(torch.zeros(3, 7)), torch.full((3,), -math.log(7)))
    logits = draw(5, 4)
    assert_close(energy(logits), -logits.exp().sum(dim=1).log(), rtol=0, atol=1e-12)


def test_classes_that_are_masked_do_not_count():
    logits = draw(5, 4)
    masked = torch.cat([torch.full((5, 3), -torch.inf), logits], dim=1).requires_grad_()
    found = energy(masked)
    assert_close(found, energy(logits), rtol=0, atol=1e-12)
    found.sum().backward()
    assert masked.grad.isfinite().all()
    assert not masked.grad[:, :3].any()


@pytest.mark.parametrize(
    ("mass_in", "mass_out", "huber", "square"),
    [
        (14.0, 0.0, 0.5, 1.0),
        (13.0, 0.0, 1.5, 4.0),
        (15.0, 4.0, 0.5, 1.0),
        (15.0, 5.0, 1.5, 4.0),
        (15.5, 2.0, 0.0, 0.0),
        (13.0, 4.0, 2.0, 5.0),
    ],
)
def test_known_values(mass_in, mass_out, huber, square):
    inside, outside = torch.tensor([-mass_in]).requires_grad_(), torch.tensor([-mass_out]).requires_grad_()
    for flag, expected in ((True, huber), (False, square)):
        value = outlier_regularizer(inside, outside, huber=flag)
        assert value.item() == expected
        gradients = torch.autograd.grad(value, (inside, outside))
        assert (gradients[0].item() > 0) == (mass_in < 15)  # down with the energy, up with the mass
        assert (gradients[1].item() < 0) == (mass_out > 3)


def test_both_terms_are_means():
    inside, outside = -torch.tensor([14.0, 20.0, 20.0, 20.0]), -torch.tensor([4.0, 0.0])
    assert outlier_regularizer(inside, outside).item() == 0.5 / 4 + 0.5 / 2


def test_thresholds_can_be_chosen():
    assert outlier_regularizer(torch.tensor([-9.0]), torch.tensor([-7.0]), -10.0, -6.0).item() == 1.0
