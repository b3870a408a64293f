"""In which order classes or domains arrive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np

OrderRule = Literal["shuffled", "natural", "coda_prompt"]


def class_order(num_classes: int, rule: OrderRule | Sequence[int] = "shuffled", seed: int = 0) -> list[int]:
    """Class ids in order of arrival; the same on every machine, and no global generator is touched.

    Args:
        num_classes: Number of classes.
        rule: ``"natural"``: by id. ``"shuffled"``: ``numpy.random.RandomState(seed).permutation``, which with seed 1993
            is the order of iCaRL, PyCIL and PILOT. ``"coda_prompt"``: the order of the CODA-Prompt and OVOR code
            for trial ``seed``: by id for 0, else Python's ``random.shuffle`` after ``random.seed(seed)``. Or the order
            itself, a list of all ids.
        seed: Seed of the rule.

    Raises:
        ValueError: If ``rule`` is unknown or is not a permutation of ``0 .. num_classes - 1``.
    """
    if isinstance(rule, str):
        if rule == "natural" or (rule == "coda_prompt" and seed == 0):
            return list(range(num_classes))
        if rule == "shuffled":
            # RandomState, not default_rng: NumPy promises that its numbers never change.
            order: list[int] = np.random.RandomState(seed % 2**32).permutation(num_classes).tolist()
            return order
        if rule == "coda_prompt":
            order = list(range(num_classes))
            random.Random(seed).shuffle(order)
            return order
        raise ValueError(
            f"the order is {rule!r}; expected 'shuffled', 'natural', 'coda_prompt' or a list of the ids "
            f"0..{num_classes - 1}."
        )
    given = [int(c) for c in rule]
    if sorted(given) != list(range(num_classes)):
        missing = sorted(set(range(num_classes)) - set(given))
        unknown = sorted({c for c in given if not 0 <= c < num_classes})
        repeated = sorted({c for c in given if given.count(c) > 1})
        raise ValueError(
            f"the order has {len(given)} entries but must name each of 0..{num_classes - 1} once: missing "
            f"{missing[:10]}, repeated {repeated[:10]}, unknown {unknown[:10]}."
        )
    return given
