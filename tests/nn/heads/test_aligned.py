"""A copy of a head that is aligned, against a head that is aligned itself."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import ClassStatistics, CosineHead, align_head
from lightning_cl.nn.heads.aligned import AlignedHead

OPTIONS = {"epochs": 2, "per_class": 16, "lr": 0.1}
HEADS = {"linear": lambda: nn.Linear(6, 4), "cosine": lambda: CosineHead(6, 4, 3.0)}


def gaussians(classes):
    statistics, generator = ClassStatistics(4, 6, "diagonal"), torch.Generator().manual_seed(0)
    for label in classes:
        rows = torch.randn(20, 6, generator=generator) + 3 * F.one_hot(torch.tensor(label), 6)
        statistics.update(rows, torch.full((20,), label))
    return statistics.gaussians(classes)


@pytest.mark.parametrize("kind", HEADS)
def test_the_copy_is_what_the_head_would_be_and_the_head_stays(kind):
    torch.manual_seed(0)
    head = HEADS[kind]()
    twin, before = copy.deepcopy(head), {name: p.detach().clone() for name, p in head.named_parameters()}
    head.register_forward_hook(lambda *_: torch.zeros(1))  # of a method: neither aligned nor answered with
    aligned = AlignedHead(head)
    aligned.align(head, (), gaussians([0, 1]), torch.Generator().manual_seed(1), **OPTIONS)
    align_head(twin, gaussians([0, 1]), torch.Generator().manual_seed(1), **OPTIONS)
    assert all(torch.equal(p, before[name]) for name, p in head.named_parameters())
    assert all(p.grad is None for p in head.parameters())
    x = torch.randn(3, 6)
    assert_close(aligned(head, x), twin(x))
    assert not torch.allclose(aligned(head, x), head.forward(x), atol=1e-2)


def test_kept_rows_start_where_they_ended():
    torch.manual_seed(0)
    head = nn.Linear(6, 4)
    aligned = AlignedHead(head)
    aligned.align(head, (), gaussians([0, 1]), torch.Generator().manual_seed(1), **OPTIONS)
    twin = copy.deepcopy(head)
    with torch.no_grad():
        for name, value in aligned.weights.items():
            twin.get_parameter(name)[:2] = value[:2]
    aligned.align(head, [0, 1], gaussians([0, 1, 2]), torch.Generator().manual_seed(2), **OPTIONS)
    align_head(twin, gaussians([0, 1, 2]), torch.Generator().manual_seed(2), **OPTIONS)
    assert all(torch.equal(value, twin.get_parameter(name)) for name, value in aligned.weights.items())
    assert bool(aligned.weights.is_taken)


def test_a_head_stays_where_the_alignment_breaks_off():
    head = nn.Linear(6, 4)
    aligned, before = AlignedHead(head), head.weight.detach().clone()

    def loss(logits, places):
        if not torch.equal(head.weight, before):
            raise ArithmeticError("in the second step")
        return F.cross_entropy(logits, places)

    with pytest.raises(ArithmeticError, match="second step"):
        aligned.align(head, (), gaussians([0, 1]), torch.Generator().manual_seed(1), loss=loss, **OPTIONS)
    assert torch.equal(head.weight, before)
    assert not aligned.weights.taken
