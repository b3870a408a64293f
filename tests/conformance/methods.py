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

from .modules import CASES, Case


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
#: Which method stands for its family, as long as others join it; else the first.
CHOSEN = (
    "APER",
    "CODAPrompt",
    "CPECLIP",
    "DERPlusPlus",
    "EWC",
    "ExperienceReplay",
    "GPM",
    "LwF",
    "PrototypeClassifier",
)
_BY_CHOICE = sorted(reversed(METHODS), key=lambda method: method.__name__ in CHOSEN)
#: One of each family, and what was asked for: these go through everything; the others once through each test.
THOROUGH = [
    *{(m.__module__.rpartition(".")[0], getattr(m, "joins", None)): m for m in _BY_CHOICE}.values(),
    *GIVEN,
]
#: The chosen ones, and what was asked for: what costs most is tried with these.
SEVEREST = [method for method in THOROUGH if method.__name__ in CHOSEN or method in GIVEN]


def in_turn(method: type[ContinualMethod], values: Sequence[Any]) -> Any:
    """One of the values for each method, so that neighbours in the list have different ones."""
    return values[METHODS.index(method) % len(values)]


def paired(values: Iterable[Any]) -> list[tuple[type[ContinualMethod], Any]]:
    """Methods and values: the thorough methods with all values, each of the others with one, in turn."""
    known = list(values)
    return [(m, value) for m in METHODS for value in (known if m in THOROUGH else [in_turn(m, known)])]


def case_of(method: type[ContinualMethod], cases: Sequence[Case] = CASES, slow: bool = False) -> Case:
    """The module that a method is quickly tried on in all files, so that they share a run; one of ``cases``.

    Args:
        method: One that is not thorough.
        cases: Modules to choose from.
        slow: That of the slow step, which is another.
    """
    case = in_turn(method, [*CASES[1:], CASES[0]] if slow else CASES)
    return case if case in cases else cases[slow]


def on_cases(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Thorough methods on every module, each other at once on one of them, and slowly on a second one."""
    parameters = []
    for method in METHODS:
        first, second = (case_of(method, cases, slow) for slow in (False, True))
        for case in cases if method in THOROUGH else dict.fromkeys((first, second)):
            marks = () if method in THOROUGH or case is first else pytest.mark.slow
            parameters.append(pytest.param(method, case, id=f"{case.name}-{method.__name__}", marks=marks))
    return pytest.mark.parametrize(("method", "case"), parameters)


def takes(method: type[ContinualMethod], argument: str) -> bool:
    return argument in inspect.signature(method).parameters


def make(method: type[ContinualMethod], **arguments: Any) -> ContinualMethod:
    """A fresh, small callback; arguments that the method does not have are left out."""
    accepted = {name: value for name, value in arguments.items() if takes(method, name)}
    return method(**{**method.small, **accepted})
