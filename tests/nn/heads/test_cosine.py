from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import CosineHead, ETFHead, TextHead, simplex_etf
from lightning_cl.nn.heads import cosine_answer, imprint_rows


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


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_head_answers_with_cosines(bias):
    """Its bias takes no part, and yet has a gradient, of zero."""
    head, features = nn.Linear(5, 3, bias=bias), torch.randn(4, 5)
    answer = cosine_answer(head, features, 2.0)
    assert_close(answer, 2.0 * nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2))
    answer.sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert not bias or not head.bias.grad.any()


def test_imprinted_rows_are_class_means_as_long_as_old_rows():
    weight, means = torch.tensor([[2.0, 0.0], [0.0, 4.0], [9.0, 9.0], [7.0, 7.0]]), torch.zeros(4, 2)
    means[2] = torch.tensor([0.03, 0.04])
    imprint_rows(weight, means, old=[0, 1], new=[2])
    assert_close(weight, torch.tensor([[2.0, 0.0], [0.0, 4.0], [1.8, 2.4], [7.0, 7.0]]))
