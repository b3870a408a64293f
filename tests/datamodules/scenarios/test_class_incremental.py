from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, class_order
from lightning_cl.datamodules.scenarios.class_incremental import task_sizes


@st.composite
def streams(draw):
    """Labels with every class in them, and a number of tasks of possibly unequal size."""
    num_classes = draw(st.integers(1, 12))
    extra = draw(st.lists(st.integers(0, num_classes - 1), max_size=30))
    labels = draw(st.permutations([*range(num_classes), *extra]))
    return torch.tensor(labels), num_classes, draw(st.integers(1, num_classes))


@given(streams(), st.sampled_from(["shuffled", "natural", "coda_prompt"]), st.sampled_from(["first", "last"]),
       st.integers(0, 10**6))  # fmt: skip
def test_tasks_partition_samples_and_classes(stream, rule, remainder, seed):
    labels, num_classes, num_tasks = stream
    scenario = ClassIncremental(num_tasks, class_order=rule, remainder=remainder)
    tasks = scenario.train_tasks(labels, None, num_classes, seed)
    assert len(tasks) == num_tasks
    assert sorted(torch.cat(tasks).tolist()) == list(range(len(labels)))  # disjoint, everything once
    classes = [set(labels[task].tolist()) for task in tasks]
    assert sum(map(len, classes)) == num_classes  # no class comes back
    order, start = class_order(num_classes, rule, seed), 0
    for task, held in zip(tasks, classes, strict=True):
        assert len(task) > 0
        assert torch.equal(task, task.sort().values)
        assert held == set(order[start : start + len(held)])  # the classes arrive in the order of the rule
        start += len(held)
    sizes = [len(held) for held in classes]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=remainder == "first")


@given(streams(), st.integers(0, 1000))
def test_the_same_seed_gives_the_same_tasks(stream, seed):
    labels, num_classes, num_tasks = stream
    scenario = ClassIncremental(num_tasks, remainder="first")
    first, again = (scenario.train_tasks(labels, None, num_classes, seed) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    pinned = ClassIncremental(num_tasks, remainder="first", seed=seed).train_tasks(labels, None, num_classes, seed + 1)
    assert all(torch.equal(a, b) for a, b in zip(first, pinned, strict=True))


@given(streams(), st.integers(0, 1000))
def test_evaluation_follows_the_classes(stream, seed):
    labels, num_classes, num_tasks = stream
    scenario = ClassIncremental(num_tasks, remainder="last")
    tasks = scenario.train_tasks(labels, None, num_classes, seed)
    held = [labels[task].unique().tolist() for task in tasks]
    parts = scenario.eval_tasks(labels, None, num_classes, seed, held)
    assert all(torch.equal(a, b) for a, b in zip(tasks, parts, strict=True))


@pytest.mark.parametrize(
    ("kwargs", "num_classes", "sizes"),
    [
        ({"num_tasks": 10}, 100, [10] * 10),
        ({"num_tasks": 1}, 7, [7]),
        ({"num_tasks": 3, "remainder": "first"}, 11, [4, 4, 3]),
        ({"num_tasks": 3, "remainder": "last"}, 11, [3, 4, 4]),
        ({"classes_per_task": [4, 3, 3]}, 10, [4, 3, 3]),
        ({"num_tasks": 6, "first_task_classes": 50}, 100, [50, 10, 10, 10, 10, 10]),
        ({"num_tasks": 1, "first_task_classes": 5}, 5, [5]),
        ({"num_tasks": 4, "first_task_classes": 3, "remainder": "last"}, 10, [3, 2, 2, 3]),
        ({"classes_per_task": 2}, 10, [2] * 5),
        ({"classes_per_task": 3, "remainder": "last"}, 10, [3, 3, 3, 1]),
        ({"classes_per_task": 3, "remainder": "first"}, 10, [1, 3, 3, 3]),
        ({"classes_per_task": 10, "first_task_classes": 50}, 100, [50, 10, 10, 10, 10, 10]),
        ({"classes_per_task": 3, "first_task_classes": 5, "remainder": "first"}, 10, [5, 2, 3]),
        ({"classes_per_task": 4, "first_task_classes": 4}, 4, [4]),
    ],
)
def test_sizes(kwargs, num_classes, sizes):
    assert task_sizes(num_classes, **kwargs) == sizes
    tasks = ClassIncremental(**kwargs).train_tasks(torch.arange(num_classes), None, num_classes, 0)
    assert [len(task) for task in tasks] == sizes


def test_first_session_of_fscil_is_the_natural_start():
    tasks = ClassIncremental(classes_per_task=[6, 2, 2], class_order="natural").train_tasks(
        torch.arange(10), None, 10, 5
    )
    assert [task.tolist() for task in tasks] == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"num_tasks": 3},
            r"`num_tasks` is 3 but there are 10 classes, which 3 does not divide; pass `remainder=\"first\"`"
            r".*`classes_per_task=\[4, 3, 3\]`",
        ),
        ({"num_tasks": 11}, "`num_tasks` is 11 but there are 10 classes; use at most 10"),
        ({"classes_per_task": [5, 4]}, r"`classes_per_task` \[5, 4\] adds up to 9 but there are 10 classes"),
        (
            {"num_tasks": 3, "first_task_classes": 5},
            r"leaves 5 of 10 classes for 2 later.*`classes_per_task=\[5, 3, 2\]`",
        ),
        ({"num_tasks": 3, "first_task_classes": 9}, "leaves 1 of 10 classes for 2 later tasks"),
        ({"num_tasks": 2, "first_task_classes": 12}, "leaves -2 of 10 classes"),
        ({"num_tasks": 1, "first_task_classes": 5}, "leaves 5 of 10 classes for 0 later tasks"),
        ({"num_tasks": 2, "class_order": [0, 1]}, "the order has 2 entries"),
        (
            {"classes_per_task": 3},
            r"`classes_per_task` is 3, but there are 10 classes, which cannot be divided so; .*\[3, 3, 3, 1\]`",
        ),
        (
            {"classes_per_task": 3, "first_task_classes": 5},
            r"`first_task_classes` is 5, and `classes_per_task` is 3, but there are 10 classes.*\[5, 3, 2\]`",
        ),
        ({"classes_per_task": 3, "first_task_classes": 11}, "`first_task_classes` is 11, and .*there are 10 classes"),
        (
            {"classes_per_task": [6, 2]},
            r"adds up to 8 but .*in one task \(a base session with increments is `first_task_classes=6, "
            r"classes_per_task=2`\)\.",
        ),
        ({"classes_per_task": [[0, 1], [2, 3, 4, 5, 6, 7, 8, 8]]}, r"missing \[9\], repeated \[8\]"),
    ],
)
def test_classes_that_cannot_be_divided_so(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ClassIncremental(**kwargs).train_tasks(torch.arange(10), None, 10, 0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "`num_tasks` is None and `classes_per_task` is None; give exactly one"),
        ({"num_tasks": 2, "classes_per_task": [5, 5]}, "give exactly one"),
        ({"num_tasks": 0}, "`num_tasks` is 0; give at least 1"),
        ({"num_tasks": 2, "first_task_classes": 0}, "`first_task_classes` is 0"),
        ({"classes_per_task": [5, 0, 5]}, r"`classes_per_task` is \[5, 0, 5\]; every task needs at least 1 class"),
        ({"classes_per_task": []}, "every task needs at least 1 class"),
        ({"classes_per_task": [5, 5], "first_task_classes": 5}, "drop `first_task_classes`"),
        ({"num_tasks": 2, "remainder": "middle"}, "`remainder` is 'middle'"),
        (
            {"num_tasks": 50, "classes_per_task": 10},
            r"exactly one of them \(a base session with increments is `first_task_classes=50, classes_per_task=10`",
        ),
        ({"num_tasks": "5"}, "`num_tasks` is the text '5'; expected a whole number"),
        ({"num_tasks": 2.0}, "`num_tasks` is 2.0; expected a whole number"),
        ({"num_tasks": [[0, 1], [2, 3]]}, "`num_tasks` is a list; expected a whole number"),
        ({"classes_per_task": 0}, "`classes_per_task` is 0; every task needs at least 1 class"),
        ({"classes_per_task": [[0, 1], []]}, "every task needs at least 1 class"),
        ({"classes_per_task": [2, [3, 4]]}, "give one number for all tasks, one for each, or for each the list of its"),
        ({"classes_per_task": "ten"}, "`classes_per_task` is 'ten'; give one number for all tasks"),
        ({"classes_per_task": [2.5]}, r"`classes_per_task` is \[2.5\]; give one number for all tasks"),
        ({"classes_per_task": [[0, 1]], "class_order": "natural"}, "already says which class comes when; drop"),
    ],
)
def test_wrong_arguments_fail_at_construction(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ClassIncremental(**kwargs)


def test_no_task_is_empty():
    with pytest.raises(ValueError, match=r"the classes \[1\] have no training samples"):
        ClassIncremental(3).train_tasks(torch.tensor([0, 2, 2]), None, 3, 0)


# ---------------------------------------------------------------------- in people's words

NAMES = ["cat", "dog", "car", "ship", "frog", "deer"]
WANTED = [[3, 1], [5, 0], [2, 4]]


def stream(scenario, names=NAMES):
    labels = np.arange(12) % len(names)
    images = np.zeros((12, 4, 4, 3), dtype=np.uint8)
    data = ContinualDataModule(ArraySource((images, labels), (images, labels), class_names=names), scenario)
    return [sorted(held) for held in data.info.classes_per_task]


@pytest.mark.parametrize(
    "words",
    [
        {"classes_per_task": WANTED},
        {"classes_per_task": tuple(tuple(held) for held in WANTED)},
        {"classes_per_task": np.array(WANTED)},
        {"classes_per_task": [np.array(held) for held in WANTED]},
        {"classes_per_task": torch.tensor(WANTED)},
        {"classes_per_task": [["ship", "dog"], ["deer", "cat"], ["car", "frog"]]},
        {"classes_per_task": 2, "class_order": [3, 1, 5, 0, 2, 4]},
        {"classes_per_task": np.int64(2), "class_order": np.array([3, 1, 5, 0, 2, 4])},
        {"classes_per_task": np.array([2, 2, 2]), "class_order": torch.tensor([3, 1, 5, 0, 2, 4])},
        {"num_tasks": np.int32(3), "class_order": ["ship", "dog", "deer", "cat", "car", "frog"]},
        {"first_task_classes": 2, "classes_per_task": 2, "class_order": np.array(NAMES)[[3, 1, 5, 0, 2, 4]]},
    ],
    ids=str,
)
def test_tasks_in_peoples_words(words):
    assert stream(ClassIncremental(**words)) == [sorted(held) for held in WANTED]


def test_tasks_of_unequal_size_by_their_classes():
    assert stream(ClassIncremental(classes_per_task=[["frog"], ["cat", "dog", "car"], ["ship", "deer"]])) == [
        [4],
        [0, 1, 2],
        [3, 5],
    ]


def test_a_scenario_stays_as_it_was_given():
    scenario = ClassIncremental(classes_per_task=2, class_order=NAMES)
    stream(scenario)
    assert scenario.class_order == NAMES
    assert stream(scenario, NAMES[::-1]) == [[4, 5], [2, 3], [0, 1]]  # by the names of another source
