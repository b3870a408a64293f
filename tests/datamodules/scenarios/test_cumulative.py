"""Cumulative streams: what every task holds, and what evaluates it."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.datamodules import ClassIncremental, Cumulative, FewShot, Forget, SiBlurry, UnlabelledDomains

LABELS = torch.arange(6).repeat(4)


def test_a_task_holds_those_before_it() -> None:
    inner = FewShot(2, 2, 3)
    own, added = (s.train_tasks(LABELS, None, 6, 0) for s in (inner, Cumulative(inner)))
    assert [len(task) for task in added] == [8, 14, 20]
    for number, task in enumerate(added):
        assert task.tolist() == sorted(torch.cat(own[: number + 1]).tolist())
    assert Cumulative(inner).few_shot
    assert Cumulative(inner).remarks[0] == inner.remarks[0]


def test_evaluation_samples_are_of_the_task_that_brings_their_class() -> None:
    scenario = Cumulative(ClassIncremental(3, class_order="natural"))
    tasks = scenario.train_tasks(LABELS, None, 6, 0)
    classes = scenario.task_classes(LABELS, tasks, 6, 0)
    assert classes == ((0, 1), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5))
    found = scenario.eval_tasks(LABELS, None, 6, 0, classes)
    assert [LABELS[index].unique().tolist() for index in found] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("scenario", [SiBlurry(2), Forget([[0]]), UnlabelledDomains()])
def test_streams_that_cannot_be_added_up_are_refused(scenario: object) -> None:
    with pytest.raises(ValueError, match=r"whose tasks cannot be added up: .* give one of shuffled, labelled tasks"):
        Cumulative(scenario)  # type: ignore[arg-type]
