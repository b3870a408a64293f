"""Votes of the nearest features, counted by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.nn.heads.neighbors import neighbor_logits


@pytest.mark.parametrize("k", [1, 3, 20])
def test_votes_and_who_wins_a_tie(k: int) -> None:
    torch.manual_seed(k)
    features, references = torch.randn(6, 4), torch.randn(9, 4)
    labels = torch.tensor([0, 0, 3, 3, 3, 1, 1, 0, 1])
    found = neighbor_logits(features, references, labels, 5, k)
    for row, feature in zip(found, features, strict=True):
        cosines = [float(torch.cosine_similarity(feature, r, dim=0)) for r in references]
        near = sorted(range(9), key=lambda i: -cosines[i])[:k]
        for c in range(5):
            own = [cosines[i] for i in range(9) if labels[i] == c]
            expected = sum(int(labels[i]) == c for i in near) + max(own) / 4 if own else -torch.inf
            assert float(row[c]) == pytest.approx(expected, abs=1e-5)
