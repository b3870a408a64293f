"""The ridge classifier against the published numbers, scikit-learn, and itself in any order."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge
from torch.testing import assert_close

from lightning_cl.nn import GramHead, ridge_solution

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(200, 6, generator=GENERATOR)
TARGETS = torch.randint(0, 4, (200,), generator=GENERATOR)
PROJECTION = torch.randn(6, 30, generator=GENERATOR)


def filled(order, batch, projection=PROJECTION, ridge=0.5):
    head = GramHead(6, 5, ridge, projection)
    for rows in order.split(batch):
        head.update(FEATURES[rows], TARGETS[rows])
    return head


def test_the_worked_numbers_sample_by_sample():
    head = GramHead(2, 2, ridge=1.0)
    expected = [[[0.5, 0], [0, 0]], [[0.5, 0], [0, 0.5]], [[0.375, 0.125], [-0.125, 0.625]]]
    for row, label, weights in zip([[1.0, 0], [0, 1], [1, 1]], [0, 1, 1], expected, strict=True):
        head.update(torch.tensor([row]), torch.tensor([label]))
        assert_close(head.solution, torch.tensor(weights, dtype=torch.float64))
    head.set_ridge(1 / 3)  # as if each sample came three times
    assert_close(head.solution, torch.tensor([[0.525, 0.075], [-0.225, 0.825]], dtype=torch.float64))


def test_against_scikit_learn():
    head = filled(torch.arange(200), 200)
    hidden = (FEATURES.double() @ PROJECTION.double()).relu()
    labels = torch.nn.functional.one_hot(TARGETS, 5).double()
    fitted = Ridge(alpha=0.5, fit_intercept=False, solver="svd").fit(hidden.numpy(), labels.numpy())
    assert_close(head.solution.T, torch.from_numpy(fitted.coef_), rtol=1e-6, atol=1e-8)
    logits = head(FEATURES)
    assert_close(logits[:, :4].double(), (hidden @ torch.from_numpy(fitted.coef_).T)[:, :4], rtol=1e-3, atol=1e-3)
    assert (logits[:, 4] == -torch.inf).all()  # no sample of it
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("batch", [1, 33])
def test_any_order_batches_and_split(batch):
    whole = filled(torch.arange(200), 200)
    other = filled(torch.randperm(200, generator=GENERATOR), batch)
    assert_close(other.solution, whole.solution, rtol=1e-9, atol=1e-12)
    parts = [filled(torch.arange(start, 200, 2), 10) for start in (0, 1)]  # two processes
    total = ridge_solution(parts[0].gram + parts[1].gram, parts[0].cross + parts[1].cross, 0.5)
    assert_close(total, whole.solution, rtol=1e-9, atol=1e-12)


def test_rows_of_weight_zero_and_the_last_solution():
    head = filled(torch.arange(200), 200)
    before = head.solution
    head.update(FEATURES[:3] + 1, TARGETS[:3], torch.zeros(3))
    assert torch.equal(head.solution, before)
    assert head.counts.sum() == 200
    fresh = GramHead(6, 5, 0.5, torch.zeros_like(PROJECTION))
    with pytest.raises(ValueError, match="not positive definite with the ridge 0"):
        GramHead(6, 5, 0.0).solution  # noqa: B018
    assert (fresh.solution == 0).all()
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(fresh.solution, before)


def test_a_feature_gets_no_gradient():
    features = FEATURES[:2].clone().requires_grad_()
    assert not filled(torch.arange(200), 200)(features).requires_grad
