"""Autoencoders of features: what they compute, that they learn, and that a gate of them finds the task."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.autoencoders import FeatureAutoencoders, relatedness


def features(task: int, count: int = 200, seed: int = 0) -> torch.Tensor:
    """Around a plane of its own for each task."""
    generator = torch.Generator().manual_seed(10 * task + seed)
    plane = torch.randn(2, 8, generator=torch.Generator().manual_seed(task))
    return torch.randn(count, 2, generator=generator) @ plane + 0.05 * torch.randn(count, 8, generator=generator)


def fitted() -> FeatureAutoencoders:
    bank = FeatureAutoencoders(3, 8, 3)
    for task in range(2):
        bank.fit(task, features(task), torch.Generator().manual_seed(task), steps=400, lr=0.02)
    return bank


def test_it_computes_its_formula() -> None:
    bank, x = fitted(), features(0, 5)
    given = torch.sigmoid((x - features(0).mean(0)) / features(0).std(0, correction=0))
    assert_close(bank.squashed(0, x), given)
    hidden = torch.sigmoid(given @ bank.encoder[0].T + bank.encoder_bias[0])
    assert_close(bank.code(0, x), hidden)
    decoded = torch.sigmoid(hidden @ bank.decoder[0].T + bank.decoder_bias[0])
    assert_close(bank.error(0, x), ((decoded - given) ** 2).mean(1))


def test_it_learns_its_task_and_leaves_the_others() -> None:
    bank = fitted()
    untrained = FeatureAutoencoders(1, 8, 3)
    untrained.fit(0, features(0), torch.Generator().manual_seed(0), steps=1, lr=1e-9)
    assert bank.error(0, features(0, seed=5)).mean() < 0.5 * untrained.error(0, features(0, seed=5)).mean()
    for task in range(2):
        own, other = (bank.error(slot, features(task, seed=7)) for slot in (task, 1 - task))
        assert (own < other).double().mean() > 0.9
    before = {name: value.clone() for name, value in bank.named_buffers()}
    bank.fit(2, features(2), torch.Generator().manual_seed(2), steps=3, lr=0.02)
    assert all(torch.equal(value[:2], before[name][:2]) for name, value in bank.named_buffers())
    assert not list(bank.parameters())


def test_relatedness_of_known_errors() -> None:
    assert relatedness(0.2, 0.2) == 1
    assert relatedness(0.3, 0.2) == pytest.approx(0.5)
    assert relatedness(0.23, 0.2) == pytest.approx(0.85)
