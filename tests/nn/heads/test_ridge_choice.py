"""The chosen ridge has the least error on samples that were held out by their places alone."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge
from torch.testing import assert_close

from lightning_cl.nn import GramHead
from lightning_cl.nn.heads import RIDGES, choose_ridge, held_out
from lightning_cl.nn.heads.ridge_choice import ridge_errors

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(120, 8, generator=GENERATOR, dtype=torch.float64)
TARGETS = (FEATURES[:, :3] + 0.8 * torch.randn(120, 3, generator=GENERATOR, dtype=torch.float64)).argmax(1)


def fitted(count):
    head = GramHead(8, 3, 1.0, torch.randn(8, 80, generator=torch.Generator().manual_seed(1)))
    head.update(FEATURES[:count], TARGETS[:count])
    return head


def test_a_fifth_is_held_out_wherever_it_lies():
    mask = held_out(torch.arange(10000))
    assert abs(float(mask.double().mean()) - 0.2) < 0.01
    for start in range(0, 10000, 500):  # a class of 500 samples in a row
        assert 80 < int(mask[start : start + 500].sum()) < 120
    order = torch.randperm(10000, generator=GENERATOR)
    assert torch.equal(held_out(order), mask[order])
    assert int(held_out(torch.arange(10**8, 10**8 + 1000)).sum()) > 150  # nothing overflows


def test_errors_are_those_of_scikit_learn():
    head = fitted(90)
    hidden = (FEATURES @ head.projection.double()).relu()
    labels = torch.nn.functional.one_hot(TARGETS, 3).double()
    errors = ridge_errors(head.gram, head.cross, hidden[90:], TARGETS[90:], [0.1, 10.0])
    for ridge, error in zip([0.1, 10.0], errors, strict=True):
        model = Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(hidden[:90].numpy(), labels[:90].numpy())
        expected = ((model.predict(hidden[90:].numpy()) - labels[90:].numpy()) ** 2).mean()
        assert_close(error, float(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_the_least_error_wins(scale):
    head = fitted(90)
    hidden = head.hidden(FEATURES[90:])
    found = choose_ridge(head.gram, head.cross, hidden, TARGETS[90:], scale)
    errors = {r: ridge_errors(head.gram, head.cross, hidden, TARGETS[90:], [scale * r])[0] for r in RIDGES}
    assert found == scale * min(errors, key=errors.get)
    assert 1e-3 < found < 1e5  # neither end of the grid: noise and many columns
    assert len(RIDGES) == 17


def test_without_held_out_samples_nothing_is_chosen():
    head = fitted(90)
    assert choose_ridge(head.gram, head.cross, head.hidden(FEATURES[:0]), TARGETS[:0], 1.0) is None
    zero = torch.zeros_like(head.gram)
    assert choose_ridge(zero, head.cross, head.hidden(FEATURES[:3]), TARGETS[:3], 0.0) is None
    assert ridge_errors(zero, head.cross, head.hidden(FEATURES[:3]), TARGETS[:3], [0.0]) == [float("inf")]


def test_a_chosen_ridge_and_cosines():
    """Linear logits choose the long column, cosines the one in the direction."""
    head = GramHead(2, 2, 0.0)
    head.gram.copy_(torch.eye(2))
    head.cross.copy_(torch.tensor([[10.0, 1.0], [0.0, 1.0]]))
    head.counts.fill_(1)
    x = torch.tensor([[1.0, 0.8]], dtype=torch.float64)
    assert_close(head(x), torch.tensor([[10.0, 1.8]], dtype=torch.float64))
    head.cosine = True
    assert_close(head(x), torch.tensor([[0.7809, 0.9939]], dtype=torch.float64), rtol=0, atol=1e-4)
    head.set_ridge(2.0)
    fresh = GramHead(2, 2, 0.0)
    fresh.load_state_dict(head.state_dict())
    assert fresh.ridge == 2.0
    assert_close(fresh.solution, head.cross / 3)
