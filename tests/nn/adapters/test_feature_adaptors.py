"""Adaptors on features: within their budget, chosen by their score, and the identity before they are trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn.adapters import feature_adaptors
from lightning_cl.nn.adapters.feature_adaptors import FeatureAdaptors, Shape, draw_shape, widest_within


@pytest.mark.parametrize("budget", [1, 100, 700, 5000])
def test_shapes_are_within_the_budget(budget: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [draw_shape(16, budget, generator) for _ in range(40)]
    for depth, width, _ in shapes:
        assert 1 <= width <= widest_within(16, budget, depth)
        assert width == 1 or 2 * 16 * width + (depth - 1) * width**2 <= budget
    assert {shape.depth for shape in shapes} == {1, 2}
    widest = widest_within(16, budget, 2)
    assert 2 * 16 * (widest + 1) + (widest + 1) ** 2 > budget


def chosen(candidates: int = 4, seed: int = 0) -> FeatureAdaptors:
    adaptors = FeatureAdaptors(2, 16, 3, 700)
    features = torch.randn(20, 16, generator=torch.Generator().manual_seed(5))
    adaptors.choose(1, features, candidates, torch.Generator().manual_seed(seed))
    return adaptors


def test_the_candidate_of_the_best_score_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, drawn = iter([1.0, 3.0, 2.0]), []
    monkeypatch.setattr(feature_adaptors, "naswot", lambda active: next(scores))
    draw = feature_adaptors.draw_shape
    monkeypatch.setattr(feature_adaptors, "draw_shape", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    adaptors = chosen(3)
    assert adaptors.shape_of(1) == drawn[1]
    assert int((adaptors.down[1] != 0).any(dim=1).sum()) == drawn[1].width
    assert not bool(adaptors.down[0].any())


def test_before_it_is_trained_only_the_head_answers() -> None:
    adaptors, z = chosen(), torch.randn(5, 16)
    assert_close(adaptors.logits(z, 1), z @ adaptors.head[1].T)
    with torch.no_grad():
        adaptors.up.copy_(torch.randn(adaptors.up.shape))
    depth, width, activation = adaptors.shape_of(1)
    phi = (F.relu, F.gelu, torch.tanh)[activation]
    hidden = phi(z @ adaptors.down[1][:width].T)
    if depth == 2:
        hidden = phi(hidden @ adaptors.middle[1][:width, :width].T)
    assert_close(adaptors.logits(z, 1), (z + hidden @ adaptors.up[1][:width]) @ adaptors.head[1].T)


def test_the_same_seed_chooses_the_same_and_a_checkpoint_knows_it() -> None:
    one, other, fresh = chosen(seed=3), chosen(seed=3), FeatureAdaptors(2, 16, 3, 700)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert fresh.shape_of(1) == Shape(0, 0, 0)
    fresh.load_state_dict(one.state_dict())
    assert fresh.shape_of(1) == one.shape_of(1)
