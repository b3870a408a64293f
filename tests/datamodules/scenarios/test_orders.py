from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import (
    ArraySource,
    ClassIncremental,
    ContinualDataModule,
    DomainIncremental,
    FewShot,
    class_order,
)
from lightning_cl.datamodules.scenarios.orders import ids_of, read_order


@pytest.mark.parametrize(
    ("num_classes", "seed", "first"),
    [
        (100, 1, [53, 37, 65, 51, 4, 20]),
        (100, 2, [0, 76, 61, 63, 1, 71]),
        (200, 1, [33, 146, 79, 19, 23, 131]),
        (200, 2, [51, 94, 55, 35, 170, 177]),
        (100, 0, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_coda_prompt_orders(num_classes, seed, first):  # as printed by the authors' code
    assert class_order(num_classes, "coda_prompt", seed)[:6] == first


def test_icarl_order():  # the order in iCaRL's, PyCIL's and PILOT's logs for CIFAR-100 and seed 1993
    assert class_order(100, "shuffled", 1993)[:10] == [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]


@given(st.integers(1, 60), st.sampled_from(["natural", "shuffled", "coda_prompt"]), st.integers(0, 2**40))
def test_every_rule_is_a_repeatable_permutation(num_classes, rule, seed):
    order = class_order(num_classes, rule, seed)
    assert sorted(order) == list(range(num_classes))
    assert class_order(num_classes, rule, seed) == order
    assert all(type(c) is int for c in order)


def test_seeds_differ():
    for rule in ("shuffled", "coda_prompt"):
        assert class_order(50, rule, 1) != class_order(50, rule, 2)


def test_global_generators_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()
    class_order(10, "shuffled", 3)
    class_order(10, "coda_prompt", 3)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


def test_an_order_can_be_given():
    assert class_order(3, [2, 0, 1]) == [2, 0, 1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ([0, 1], r"the order has 2 entries but must name each of 0\.\.2 once: missing \[2\]"),
        ([0, 1, 1], r"missing \[2\], repeated \[1\]"),
        ([0, 1, 3], r"missing \[2\], repeated \[\], unknown \[3\]"),
        ("random", "the order is 'random'; expected 'shuffled', 'natural', 'coda_prompt' or a list"),
    ],
)
def test_wrong_orders(rule, message):
    with pytest.raises(ValueError, match=message):
        class_order(3, rule)


# ---------------------------------------------------------------------- names and files

NAMES = ["a cat", "dog", "car", "ship"]


def source(names=NAMES):
    images, labels = np.zeros((8, 4, 4, 3), dtype=np.uint8), np.arange(8) % 4
    domains = {"train_domains": labels, "test_domains": labels, "domain_names": names}
    return ArraySource((images, labels), (images, labels), class_names=names, **domains)


def tasks_of(scenario, names=NAMES):
    return [held[0] for held in ContinualDataModule(source(names), scenario).info.classes_per_task]


SCENARIOS = [
    lambda order: ClassIncremental(num_tasks=4, class_order=order),
    lambda order: FewShot(base_classes=1, ways=1, shots=1, class_order=order),
    lambda order: DomainIncremental(order),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=["class", "few_shot", "domain"])
@pytest.mark.parametrize(
    "kind", ["names", "ids", "names.txt", "ids.txt", "commas.csv", "names.json", "ids.json", "ids.npy"]
)
def test_an_order_by_names_or_from_a_file(scenario, kind, tmp_path):
    ids = [2, 0, 3, 1]
    names = [NAMES[i] for i in ids]
    order = {"names": names, "ids": np.array(ids)}.get(kind, tmp_path / kind)
    entries = ids if kind.startswith("ids") else names
    if kind.endswith(".txt"):
        order.write_text("\n".join(map(str, entries)) + "\n")
    elif kind.endswith(".csv"):
        order.write_text(", ".join(entries))
    elif kind.endswith(".json"):
        order.write_text(json.dumps(entries))
    elif kind.endswith(".npy"):
        np.save(order, np.array(entries))
    assert tasks_of(scenario(order)) == ids
    if isinstance(order, Path):
        assert tasks_of(scenario(str(order))) == ids


@pytest.mark.parametrize(
    ("order", "names", "message"),
    [
        (["a cat", "dgo", "car", "ship"], NAMES, r"'dgo' in `class_order` is no name; names are such as \['dog'\]"),
        (
            ["a cat", "bird", "car", "ship"],
            NAMES,
            r"'bird' in `class_order` is no name; names are such as \['a cat'",
        ),
        (["dog", "dog", "car", "ship"], NAMES, r"missing \[0\], repeated \[1\]"),
    ],
)
def test_names_that_say_nothing(order, names, message):
    with pytest.raises(ValueError, match=message):
        tasks_of(ClassIncremental(num_tasks=4, class_order=order), names)


def test_a_name_of_two_classes_is_no_name():
    with pytest.raises(ValueError, match="'x' in `class_order` stands for several ids"):
        ids_of(["x", 2], ["x", "x", "car"], "class_order")


def test_files_that_hold_no_order(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no order in 'orders.txt': no such file"):
        tasks_of(ClassIncremental(num_tasks=4, class_order="orders.txt"))
    (tmp_path / "order.json").write_text('{"order": [1, 2]}')
    np.save(tmp_path / "order.npy", np.zeros((2, 2)))
    for name in ("order.json", "order.npy"):
        with pytest.raises(ValueError, match="holds no list of ids or names"):
            read_order(tmp_path / name)
