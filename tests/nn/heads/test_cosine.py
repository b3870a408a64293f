from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import CosineHead, ETFHead, TextHead, simplex_etf


def test_a_cosine_head_against_a_loop():
    head, features = CosineHead(5, 3, scale=4.0), torch.randn(2, 5)
    for logits, f in zip(head(features), features, strict=True):
        assert_close(logits, torch.stack([4.0 * f @ w / (f.norm() * w.norm()) for w in head.weight]))
    assert isinstance(head, nn.Linear)
    assert head.bias is None


@pytest.mark.parametrize("learn", [True, False])
def test_the_scale_is_trained_or_not(learn):
    head = CosineHead(5, 3, learn_scale=learn)
    head(torch.randn(2, 5)).sum().backward()
    assert head.scale.item() == 1
    assert (head.scale.grad is not None) == learn
    assert head.weight.grad is not None


@pytest.mark.parametrize(("classes", "width"), [(2, 1), (5, 4), (5, 9), (40, 64)])
def test_a_simplex_has_equal_angles(classes, width):
    rows = simplex_etf(classes, width, torch.Generator().manual_seed(0))
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    assert_close(rows @ rows.T, expected, rtol=0, atol=1e-12)


def test_an_etf_head_is_fixed_and_comes_from_its_generator():
    heads = [ETFHead(8, 4, torch.Generator().manual_seed(seed), scale=10.0) for seed in (1, 1, 2)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    assert not list(heads[0].parameters())
    assert "weight" in heads[0].state_dict()
    logits = heads[0](3 * heads[0].weight)
    assert_close(logits, torch.full((4, 4), -10 / 3).fill_diagonal_(10.0))


def test_too_many_rows_for_a_simplex():
    with pytest.raises(ValueError, match="6 rows at equal angles need at least 5 channels, but features have 4"):
        ETFHead(4, 6, torch.Generator())


def test_the_text_head_is_among_the_heads():
    from lightning_cl.nn import heads

    assert heads.TextHead is TextHead
