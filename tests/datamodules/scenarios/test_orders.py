from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import class_order


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
