"""Hypervectors: nearly orthogonal, bundled in any order, and a detector that knows what it has seen."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.hypervectors import DomainMemory, bundle, signs
from lightning_cl.nn.zero_cost import naswot


def cluster(seed: int, count: int = 200, width: int = 16) -> torch.Tensor:
    """Features around a centre of their own."""
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(width, generator=generator) + torch.randn(count, width, generator=generator)


def test_random_hypervectors_are_nearly_orthogonal() -> None:
    a, b = signs(torch.randn(2, 10000, generator=torch.Generator().manual_seed(0)))
    assert abs(float(a @ b) / 10000) < 0.05
    assert set(signs(torch.tensor([-2.0, 0.0, 3.0])).tolist()) == {-1.0, 1.0}


def test_bundling_is_free_of_order() -> None:
    vectors = signs(torch.randn(50, 10000))
    assert torch.equal(bundle(vectors), bundle(vectors[torch.randperm(50)]))
    assert bool((signs(bundle(vectors)) @ vectors.T / 10000 > 0.05).all())  # like each of them


def test_what_was_added_is_known_and_what_is_new_is_not() -> None:
    memory = DomainMemory(3, 16, 2000)
    assert memory.share_outside(cluster(0)) == 1.0
    for domain in (0, 1):
        assert memory.add(cluster(domain, 200)) == domain
    for domain in (0, 1):
        again = cluster(domain, 400)[200:]
        assert memory.share_outside(again) < 0.15  # about a twentieth, by the threshold
        assert bool((memory.nearest(again) == domain).all())
    assert memory.share_outside(cluster(2)) > 0.9


def test_a_similarity_is_the_cosine_of_signs() -> None:
    memory = DomainMemory(2, 4, 64)
    found = cluster(0, 20, 4)
    memory.add(found)
    z = cluster(3, 5, 4)
    code = torch.where(z @ memory.projection.T < 0, -1.0, 1.0)
    own = torch.where(found @ memory.projection.T < 0, -1.0, 1.0).sum(0)
    expected = torch.nn.functional.cosine_similarity(code, torch.where(own < 0, -1.0, 1.0)[None], dim=1)
    assert_close(memory.similarity(z)[:, 0], expected)


def test_a_threshold_is_of_samples_that_were_left_out() -> None:
    memory, found = DomainMemory(1, 8, 300, quantile=0.0), cluster(1, 6, 8)
    memory.add(found)
    codes = memory.encode(found)
    own = [torch.cosine_similarity(codes[i], signs(codes.sum(0) - codes[i]), dim=0) for i in range(6)]
    assert_close(memory.thresholds[0], torch.stack(own).min())


def test_a_saved_memory_is_the_same(tmp_path) -> None:
    memory, other = DomainMemory(2, 16, 500), DomainMemory(2, 16, 500)
    memory.add(cluster(0))
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.similarity(cluster(1)), memory.similarity(cluster(1)))
    assert "projection" not in memory.state_dict()


def test_naswot_by_hand() -> None:
    """Two samples that agree in one of three units: ``K = ((3, 1), (1, 3))``, of determinant 8."""
    assert naswot(torch.tensor([[True, False, True], [True, True, False]])) == pytest.approx(
        torch.tensor(8.0).log().item()
    )
    assert naswot(torch.tensor([[True, False], [True, False]])) == float("-inf")
