"""Average precision against scikit-learn, and F1 by hand."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.testing import assert_close

from lightning_cl.metrics.functional.multi_label import average_precision, f1_above


@pytest.mark.parametrize("scale", [1.0, 200.0])  # of large logits a sigmoid is 1
def test_average_precision_is_that_of_scikit_learn(scale):
    generator = torch.Generator().manual_seed(0)
    scores = scale * torch.randn(40, 5, generator=generator).round(decimals=1)  # with ties
    sets = torch.rand(40, 5, generator=generator) < 0.3
    sets[:, 3] = False
    found = average_precision(scores, sets)
    known = [0, 1, 2, 4]
    expected = [average_precision_score(sets[:, c].numpy(), scores[:, c].numpy()) for c in known]
    assert_close(found[known], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
    assert bool(found[3].isnan())
    assert bool(average_precision(scores[:0], sets[:0]).isnan().all())


def test_f1_over_classes_and_over_labels():
    """Class 0: 1 of 2 right, 1 of 1 found; class 1: none of 1 predicted right, 0 of 2 found; class 2 has no sample."""
    high, low = 3.0, -3.0
    scores = torch.tensor([[high, low, low], [high, high, high], [low, low, low]])
    sets = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0]]).bool()
    by_class, overall = f1_above(scores, sets)
    precision, recall = (0.5 + 0) / 2, (1 + 0) / 2
    assert_close(float(by_class), 2 * precision * recall / (precision + recall))
    assert_close(float(overall), 2 * (1 / 3) * (1 / 3) / (2 / 3))
    assert float(f1_above(scores, sets, threshold=0.99)[0]) == 0
