"""In which order classes or domains arrive: a rule, ids, names, or a file of these."""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

OrderRule = Literal["shuffled", "natural", "coda_prompt"]
_Scenario = TypeVar("_Scenario")


def is_order_file(order: Any) -> bool:
    """Whether an order is the path of a file: no rule, and with a suffix."""
    if isinstance(order, str):
        return order not in get_args(OrderRule) and Path(order).suffix != ""
    return isinstance(order, os.PathLike)


def read_order(path: str | os.PathLike[str]) -> list[int] | list[str]:
    """Ids or names of a file: ``.npy``, ``.json`` (a list), or text with one on each line or commas between them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no list.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no order in {str(file)!r}: no such file; give one with all ids or names.")
    if file.suffix == ".npy":
        values = np.load(file, allow_pickle=False).tolist()
    elif file.suffix == ".json":
        values = json.loads(file.read_text(encoding="utf-8"))
    else:
        lines = file.read_text(encoding="utf-8").splitlines()
        values = [value for line in lines for value in (line.strip() for line in line.split(",")) if value]
    if not isinstance(values, list) or any(isinstance(value, (list, dict, float)) for value in values):
        raise ValueError(f"{str(file)!r} holds no list of ids or names; give one line, or one entry, for each.")
    texts = [str(value) for value in values]
    return [int(text) for text in texts] if all(text.isdecimal() for text in texts) else texts


def ids_of(order: Sequence[Any], names: Sequence[str], what: str) -> list[int]:
    """Ids, with each name in ``order`` replaced by its id.

    Args:
        order: Ids or names.
        names: One name per id.
        what: What the order is called in errors.

    Raises:
        ValueError: If a name is not known, or known twice.
    """
    counts, index = Counter(names), {name: at for at, name in enumerate(names)}
    for entry in order:
        if isinstance(entry, str) and counts[entry] != 1:
            close = get_close_matches(entry, names, n=3) or list(names[:3])
            reason = "stands for several ids" if counts[entry] else f"is no name; names are such as {close}"
            raise ValueError(f"{entry!r} in `{what}` {reason}; give each by its id, or by a name that only it has.")
    return [index[entry] if isinstance(entry, str) else int(entry) for entry in order]


def with_ids(scenario: _Scenario, attribute: str, names: Sequence[str] | None) -> _Scenario:
    """The scenario, with ids for the names or the file in one of its attributes."""
    order = getattr(scenario, attribute)
    order = read_order(order) if is_order_file(order) else order
    if order is None or isinstance(order, str) or names is None:
        return scenario
    changed = copy.copy(scenario)
    setattr(changed, attribute, ids_of(order, names, attribute))
    return changed


def class_order(
    num_classes: int, rule: OrderRule | str | os.PathLike[str] | Sequence[int | str] = "shuffled", seed: int = 0
) -> list[int]:
    """Class ids in order of arrival; the same on every machine, and no global generator is touched.

    Args:
        num_classes: Number of classes.
        rule: ``"natural"``: by id. ``"shuffled"``: ``numpy.random.RandomState(seed).permutation``, which with seed 1993
            is the order of iCaRL, PyCIL and PILOT. ``"coda_prompt"``: the order of the CODA-Prompt and OVOR code
            for trial ``seed``: by id for 0, else Python's ``random.shuffle`` after ``random.seed(seed)``. Or the order
            itself, a list of all ids, or a file of it; names are for a scenario, which knows them.
        seed: Seed of the rule.

    Raises:
        ValueError: If ``rule`` is unknown or is not a permutation of ``0 .. num_classes - 1``.
    """
    rule = read_order(rule) if isinstance(rule, (str, os.PathLike)) and is_order_file(rule) else rule
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
    assert not isinstance(rule, os.PathLike)
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
