"""Counts by group are exact: over batches of any size, for answers given as labels or logits, and for empty groups."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_cl.metrics import GroupAccuracy

GROUPS, CLASSES = 4, 5


def counted_by_hand(preds: list[int], target: list[int], group: list[int]) -> list[list[int]]:
    rows = list(zip(preds, target, group, strict=True))
    correct = [sum(p == t for p, t, g in rows if g == wanted) for wanted in range(GROUPS)]
    return [correct, [sum(g == wanted for *_, g in rows) for wanted in range(GROUPS)]]


classes = st.integers(0, CLASSES - 1)
samples = st.lists(st.tuples(classes, classes, st.integers(0, GROUPS - 2)), max_size=12)  # the last group stays empty


@settings(deadline=None, max_examples=40)
@given(batches=st.lists(samples, min_size=1, max_size=4))
def test_uneven_batches_are_exact(batches):
    metric = GroupAccuracy(GROUPS)
    for batch in batches:
        preds, target, group = torch.tensor(batch, dtype=torch.long).reshape(-1, 3).T
        logits = torch.nn.functional.one_hot(preds, CLASSES).float()
        metric.update(logits if len(batch) % 2 else preds, target, group)
    columns = [list(column) for column in zip(*(row for batch in batches for row in batch), strict=True)] or [[]] * 3
    correct, total = counted_by_hand(*columns)
    assert [counts.tolist() for counts in metric.counts()] == [correct, total]
    expected = [c / t if t else float("nan") for c, t in zip(correct, total, strict=True)]
    assert_close(metric.compute(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0, equal_nan=True)


def test_counts_of_an_evaluation_go_on_outside_of_it():
    metric = GroupAccuracy(2)
    with torch.inference_mode():
        metric.reset()
        metric.update(torch.tensor([1, 2]), torch.tensor([1, 1]), torch.tensor([0, 1]))
    metric.update(torch.tensor([1]), torch.tensor([1]), torch.tensor([1]))
    assert metric.correct.tolist() == [1, 1]
    assert metric.total.tolist() == [1, 2]


@pytest.mark.parametrize("group", [[0, GROUPS], [-1, 0], [0]])
def test_a_group_that_there_is_not(group):
    with pytest.raises(ValueError, match=r"must give one of 0\.\.3 for each of the 2 targets"):
        GroupAccuracy(GROUPS).update(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor(group))
