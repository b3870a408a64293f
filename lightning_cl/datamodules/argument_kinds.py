"""Checks that the arguments of a stream are of the kind that is meant: one sentence with name, given and expected."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any


def shown(value: Any) -> str:
    """A value in an error: what it is, and which where that is short."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, os.PathLike):
        return f"the path {os.fspath(value)!r}"
    if isinstance(value, str):
        return f"the text {value!r}"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def as_count(name: str, value: Any) -> int:
    """A whole number, NumPy's included, as Python's.

    Raises:
        ValueError: If it is another kind of value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"`{name}` is {shown(value)}; expected a whole number.")
    return int(value)


def as_counts(name: str, value: Any) -> int | Sequence[int]:
    """One whole number, or one per task, whatever array they came in.

    Raises:
        ValueError: If it is another kind of value.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    listed = value.tolist() if hasattr(value, "tolist") else value
    if type(listed) is int:
        return listed
    if not isinstance(listed, (list, tuple, range)) or any(
        isinstance(n, bool) or not isinstance(n, Integral) for n in listed
    ):
        raise ValueError(f"`{name}` is {shown(value)}; expected a whole number, or a list with one per task.")
    return listed if all(type(n) is int for n in listed) else [int(n) for n in listed]


def check_number(name: str, value: Any) -> None:
    """Raise a ``ValueError`` unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"`{name}` is {shown(value)}; expected a number.")


def check_function(name: str, value: Callable[..., Any] | bool | None, off: str = "") -> None:
    """Raise a ``ValueError`` unless it is a function or ``None``, or ``False`` where ``off`` says what that means."""
    if value is None or (value is False and off):
        return
    if isinstance(value, type) or not callable(value):
        made = f" (an instance: `{value.__name__}(...)`)" if isinstance(value, type) else ""
        raise ValueError(f"`{name}` is {shown(value)}; expected a function{made}, or None for the source's{off}.")
