"""The key-value bottleneck against autograd and the worked numbers; what is not fetched does not move."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn import KeyValueHead

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(40, 6, generator=GENERATOR)
TARGETS = torch.randint(0, 3, (40,), generator=GENERATOR)
SMALL = {"codebooks": 5, "pairs": 8, "key_width": 3}


def test_the_first_step_from_zero():
    """``-0.3 (softmax - smoothed) / 256``."""
    head = KeyValueHead(3, 6, codebooks=256, pairs=4, key_width=2)
    assert_close(head.projection.square().sum(1), torch.ones(256, 2))
    head.update(FEATURES[:1], torch.tensor([0]))
    moved = head.values[head.used]
    assert moved.shape == (256, 3)
    assert_close(moved[0], torch.tensor([7.03e-4, -3.52e-4, -3.52e-4]), rtol=0, atol=1e-6)
    assert torch.equal(moved, moved[:1].expand(256, 3))
    assert not head.values[~head.used].any()


@pytest.mark.parametrize("clip", [1e9, 0.02])
def test_steps_are_those_of_sgd(clip):
    """Autograd, ``SGD`` and ``clip_grad_norm_`` on the same values; several inputs meet in a codebook."""
    head = KeyValueHead(3, 6, **SMALL, clip=clip)
    values = torch.nn.Parameter(head.values.clone())
    optimizer = torch.optim.SGD([values], lr=0.3)
    books = torch.arange(5)[:, None]
    for rows in torch.arange(40).split(16):
        query = torch.einsum("bd,hdk->hbk", FEATURES[rows], head.projection)
        codes = torch.cdist(query, head.keys).argmin(2)
        logits = values[books, codes].mean(0)
        optimizer.zero_grad()
        F.cross_entropy(logits, TARGETS[rows], label_smoothing=0.1).backward()
        torch.nn.utils.clip_grad_norm_([values], clip)
        optimizer.step()
        padded = torch.cat([rows, rows[:1]])
        head.update(FEATURES[padded], TARGETS[padded], torch.tensor([1.0] * len(rows) + [0.0]))
        assert_close(head.values, values.detach(), rtol=1e-4, atol=1e-7)


def test_what_is_not_fetched_stays_and_does_not_answer():
    head = KeyValueHead(3, 6, **SMALL)
    head.update(FEATURES[:2], TARGETS[:2])
    before = head.values.clone()
    assert before[head.used].any()
    head.update(FEATURES[2:], TARGETS[2:])
    fetched = torch.zeros_like(head.used)
    fetched[torch.arange(5)[:, None], head.nearest(FEATURES[2:])] = True
    assert torch.equal(head.values[~fetched], before[~fetched])
    head.used[:, 1:] = False
    head.used[:, 0] = True  # one pair of each codebook is left
    assert_close(head(FEATURES[:2]), head.values[:, 0].mean(0).expand(2, 3).where(head.counts > 0, -torch.inf))


def test_keys_go_to_the_centres_of_the_features():
    """Three tight groups and three keys: each key ends in the middle of one."""
    centres = 6 * torch.eye(6)[:3]
    features = centres.repeat(50, 1) + 0.01 * torch.randn(150, 6, generator=GENERATOR)
    head = KeyValueHead(3, 6, codebooks=2, pairs=3, key_width=4)
    head.fit_keys(features, epochs=60, batch_size=30)
    for book in range(2):
        middle = centres @ head.projection[book]
        away = torch.cdist(middle, head.keys[book])
        assert sorted(away.argmin(1).tolist()) == [0, 1, 2]
        assert away.min(1).values.max() < 0.1
    far = KeyValueHead(3, 6, codebooks=2, pairs=20, key_width=4)
    far.keys *= 100
    far.fit_keys(features, epochs=1, batch_size=150)
    assert far.keys.norm(dim=2).max() <= far.queries(features).norm(dim=2).max() * 1.01
    assert len(far.keys[0].unique(dim=0)) > 10  # those without hits are put on features, not all on one place
    again = KeyValueHead(3, 6, codebooks=2, pairs=3, key_width=4)
    again.fit_keys(features, epochs=60, batch_size=30)
    assert torch.equal(again.keys, head.keys)
    assert not head.used.any()
