"""Terms of prompt learning: numbers of their specifications, and the formulas typed out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.prompt_terms import anchor_distance, epoch_weights, mean_divergence, prompt_diversity


def test_weights_of_epochs() -> None:
    """20 epochs around the 15th with a deviation of 1; with an infinite one all weigh the same."""
    weights = epoch_weights(20, 15, 1)
    assert_close(
        weights[12:17], torch.tensor([0.05399, 0.24197, 0.39894, 0.24197, 0.05399]).double(), rtol=0, atol=1e-5
    )
    assert weights.sum().item() == pytest.approx(1)
    assert_close(epoch_weights(4, 3, math.inf), torch.full((4,), 0.25).double())
    assert epoch_weights(5, 100, 0.01)[-1].item() == 1  # all are far away: the nearest counts


def test_the_divergence_is_divided_by_the_number_of_logits() -> None:
    torch.manual_seed(0)
    logits, frozen = torch.randn(2, 3, 5, dtype=torch.float64)
    p, p0 = logits.softmax(1), frozen.softmax(1)
    assert_close(mean_divergence(logits, frozen), (p0 * (p0 / p).log()).sum() / 15)
    assert mean_divergence(frozen, frozen).item() == pytest.approx(0, abs=1e-15)


def test_diversity_of_two_prompts_at_sixty_degrees() -> None:
    angle = math.radians(60)
    features = torch.tensor([[[2.0, 0.0]], [[math.cos(angle), math.sin(angle)]]])
    assert prompt_diversity(features).item() == pytest.approx(0.25)
    assert prompt_diversity(features[:1]).item() == 0
    assert prompt_diversity(torch.eye(3)[:, None]).item() == 0
    assert prompt_diversity(torch.ones(3, 4, 2)).item() == pytest.approx(1)
    torch.manual_seed(0)
    many = torch.randn(3, 4, 6, dtype=torch.float64)
    pairs = [torch.cosine_similarity(many[i], many[j], dim=1) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))]
    assert_close(prompt_diversity(many), torch.stack(pairs).mean())


def test_the_anchor_is_compared_with_the_mean_of_features_as_they_are() -> None:
    """Features of lengths 3 and 1: their mean leans to the longer one."""
    features = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]])
    assert anchor_distance(features, torch.tensor([[3.0, 1.0]])).item() == pytest.approx(0, abs=1e-6)
    assert anchor_distance(features, torch.tensor([[-1.0, 3.0]])).item() == pytest.approx(1)
