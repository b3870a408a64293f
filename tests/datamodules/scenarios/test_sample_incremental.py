"""Samples in the order of the data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import SampleIncremental


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 30))
def test_parts_are_consecutive_and_even(count, num_tasks, evaluated):
    scenario = SampleIncremental(num_tasks)
    labels = torch.zeros(count, dtype=torch.long)
    if count < num_tasks:
        with pytest.raises(ValueError, match=f"`num_tasks` is {num_tasks} but there are {count} samples"):
            scenario.train_tasks(labels, None, 1, 0)
        return
    tasks = scenario.train_tasks(labels, None, 1, 0)
    assert torch.cat(tasks).tolist() == list(range(count))
    sizes = [len(task) for task in tasks]
    assert (len(tasks), sizes) == (num_tasks, sorted(sizes, reverse=True))
    assert max(sizes) - min(sizes) <= 1
    parts = scenario.eval_tasks(torch.zeros(evaluated, dtype=torch.long), None, 1, 0, [(0,)] * num_tasks)
    assert torch.cat(parts).tolist() == list(range(evaluated))
    assert len(parts) == num_tasks


@pytest.mark.parametrize(
    ("arguments", "words"), [((0,), "`num_tasks` is 0"), ((2, "sorted"), "`order` is 'sorted'; expected 'shuffled'")]
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        SampleIncremental(*arguments)
