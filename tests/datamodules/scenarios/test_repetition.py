from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import Repetition
from lightning_cl.datamodules.scenarios.repetition import class_probabilities, drawn_classes

LABELS = torch.arange(200) % 10


def held(tasks):
    return [frozenset(LABELS[task].tolist()) for task in tasks]


def test_every_task_has_all_of_its_classes_and_they_come_back():
    tasks = Repetition(60, 3, seed=0).train_tasks(LABELS, None, 10, 0)
    assert len(tasks) == 60
    for task, classes in zip(tasks, held(tasks), strict=True):
        assert len(classes) == 3
        assert sorted(task.tolist()) == [i for i in range(200) if int(LABELS[i]) in classes]
    assert len(set(held(tasks))) > 30
    assert not torch.equal(tasks[0], tasks[0].sort().values)  # mixed: it may arrive as an online stream


def test_samples_of_a_class_are_drawn_anew():
    tasks = Repetition(40, 2, samples_per_class=4, seed=0).train_tasks(LABELS, None, 10, 0)
    assert {len(task) for task in tasks} == {8}
    assert all(torch.bincount(LABELS[task]).max() == 4 for task in tasks)
    assert len(torch.cat(tasks).unique()) > 100


def test_with_all_classes_every_task_is_the_whole_data_set():
    for task in Repetition(3, 10).train_tasks(LABELS, None, 10, 0):
        assert sorted(task.tolist()) == list(range(200))


def test_frequencies_converge_to_the_inclusion_probability():
    drawn = drawn_classes(4000, 3, np.full(10, 0.1), "same", np.random.RandomState(0))
    frequency = np.bincount(np.concatenate(drawn), minlength=10) / 4000
    np.testing.assert_allclose(frequency, 0.3, atol=4 * np.sqrt(0.3 * 0.7 / 4000))


def test_frequencies_with_one_class_per_task_are_the_probabilities():
    probabilities = class_probabilities(10, 0.05, 2.0, np.random.RandomState(1))
    drawn = drawn_classes(4000, 1, probabilities, "same", np.random.RandomState(0))
    frequency = np.bincount(np.concatenate(drawn), minlength=10) / 4000
    np.testing.assert_allclose(frequency, probabilities, atol=4 * np.sqrt(0.15 * 0.85 / 4000))


def test_probabilities_are_those_of_the_paper_dealt_out_by_the_seed():
    expected = np.array([(1 / 10 - c * 0.05 / 10) ** 3 for c in range(10)])
    found = class_probabilities(10, 0.05, 3.0, np.random.RandomState(0))
    np.testing.assert_allclose(np.sort(found), np.sort(expected / expected.sum()))
    np.testing.assert_allclose(class_probabilities(4, 0.0, 1.0, np.random.RandomState(0)), 0.25)


@pytest.mark.parametrize(("second_half", "common"), [("other", 0), ("part", 5), ("same", 10)])
def test_the_second_half_of_the_stream(second_half, common):
    tasks = held(Repetition(100, 2, second_half=second_half).train_tasks(LABELS, None, 10, 0))
    first, second = frozenset().union(*tasks[:50]), frozenset().union(*tasks[50:])
    assert len(first & second) == common
    assert len(first | second) == 10


def test_a_class_that_never_comes_is_named():
    with pytest.warns(UserWarning, match=r"Repetition has no task with the classes \[.+\]"):
        Repetition(2, 2).train_tasks(LABELS, None, 10, 0)


def test_the_seed_decides():
    first, again = (held(Repetition(40, 2).train_tasks(LABELS, None, 10, 5)) for _ in range(2))
    assert first == again == held(Repetition(40, 2, seed=5).train_tasks(LABELS, None, 10, 1))
    assert first != held(Repetition(40, 2).train_tasks(LABELS, None, 10, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tasks": 0}, "`num_tasks` is 0; give at least 1"),
        ({"classes_per_task": 0}, "`classes_per_task` is 0"),
        ({"samples_per_class": 0}, "`samples_per_class` is 0"),
        ({"imbalance": -0.1}, "`imbalance` is -0.1; give a number of at least 0"),
        ({"sharpness": float("nan")}, "`sharpness` is nan"),
        ({"second_half": "new"}, "`second_half` is 'new'; expected 'same', 'other' or 'part'"),
        ({"order": "random"}, "`order` is 'random'"),
    ],
)
def test_wrong_arguments_fail_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        Repetition(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes_per_task": 11}, "`classes_per_task` is 11 but tasks draw from 10 of 10 classes.*use at most 10"),
        (
            {"classes_per_task": 6, "second_half": "other"},
            "`classes_per_task` is 6 but tasks draw from 5 of 10 classes",
        ),
        ({"imbalance": 0.2}, "`imbalance` is 0.2, which leaves some of 10 classes no chance; give less than 1 / 9"),
    ],
)
def test_arguments_that_do_not_fit_the_classes(options, message):
    with pytest.raises(ValueError, match=message):
        Repetition(**options).train_tasks(LABELS, None, 10, 0)
