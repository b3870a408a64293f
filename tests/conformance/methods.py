"""Finds the method callbacks of the package, and makes them small."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

import lightning_cl.callbacks
from lightning_cl.callbacks import ContinualMethod


def find_methods() -> list[type[ContinualMethod]]:
    """All exported methods that can be constructed, by name."""
    exported = (getattr(lightning_cl.callbacks, name) for name in sorted(lightning_cl.callbacks.__all__))
    classes = (c for c in exported if isinstance(c, type) and issubclass(c, ContinualMethod))
    # A base class of methods states no key of its own: what it inherits from Lightning is a property.
    return [c for c in classes if isinstance(c.state_key, str) and not inspect.isabstract(c)]


def given_methods(names: str) -> list[type[ContinualMethod]]:
    """Classes that the package does not export, from ``"module:Class, module:Class"``."""
    pairs = [name.strip().partition(":")[::2] for name in names.split(",") if name.strip()]
    return [getattr(importlib.import_module(module), name) for module, name in pairs]


GIVEN = given_methods(os.environ.get("LIGHTNING_CL_METHODS", ""))
METHODS = find_methods() + GIVEN
#: The first of each family, and what was asked for: these go through everything; the others once through each test.
THOROUGH = [
    *{(m.__module__.rpartition(".")[0], getattr(m, "joins", None)): m for m in reversed(METHODS)}.values(),
    *GIVEN,
]


def paired(values: Iterable[Any]) -> list[tuple[type[ContinualMethod], Any]]:
    """Methods and values: the thorough methods with all values, each of the others with one, in turn."""
    known, pairs = list(values), []
    for place, method in enumerate(METHODS):
        pairs += [(method, value) for value in (known if method in THOROUGH else [known[place % len(known)]])]
    return pairs


def on_cases(cases: Sequence[Any]) -> pytest.MarkDecorator:
    """Every method on every module: thorough methods at once, each other on one of them, and slowly on the rest."""
    parameters = []
    for place, method in enumerate(METHODS):
        for number, case in enumerate(cases):
            quick = method in THOROUGH or number == place % len(cases)
            marks = () if quick else pytest.mark.slow
            parameters.append(pytest.param(method, case, id=f"{case.name}-{method.__name__}", marks=marks))
    return pytest.mark.parametrize(("method", "case"), parameters)


def takes(method: type[ContinualMethod], argument: str) -> bool:
    return argument in inspect.signature(method).parameters


def make(method: type[ContinualMethod], **arguments: Any) -> ContinualMethod:
    """A fresh, small callback; arguments that the method does not have are left out."""
    accepted = {name: value for name, value in arguments.items() if takes(method, name)}
    return method(**{**method.small, **accepted})
