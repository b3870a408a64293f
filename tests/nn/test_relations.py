"""Relations to prototypes and the weights of teachers, typed out."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lightning_cl.nn.relations import log_divergence, sample_relations, teacher_weights, text_relations


def test_relations_are_softmaxes_of_cosines() -> None:
    torch.manual_seed(0)
    images, prototypes, texts = torch.randn(4, 6).double(), torch.randn(3, 6).double(), torch.randn(3, 6).double()
    found = sample_relations(images, prototypes, texts, 0.5)
    for i in range(4):
        for block, rows in enumerate((prototypes, texts)):
            scores = torch.stack([images[i] @ row / 0.5 for row in rows])
            assert_close(found[block, i].exp(), scores.exp() / scores.exp().sum())
    assert_close(text_relations(texts, prototypes, 0.5), (texts @ prototypes.T / 0.5).log_softmax(1))


def test_the_surer_teacher_counts_for_more() -> None:
    sure, unsure = torch.tensor([[9.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2)
    weights = teacher_weights([sure, unsure], 0.1)
    assert_close(weights.sum(0), torch.ones(2))
    assert weights[0, 0] > 0.99
    assert_close(weights[:, 1], torch.tensor([0.5, 0.5]))
    assert_close(teacher_weights([sure, unsure], math.inf), torch.full((2, 2), 0.5))


def test_divergence_of_the_same_is_zero() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(2, 3, 5).double().log_softmax(-1)
    assert_close(log_divergence(q, p), (p.exp() * (p - q)).sum(-1))
    assert_close(log_divergence(p, p), torch.zeros(3).double())
