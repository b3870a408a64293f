"""Ranges of a method's arguments, stated beside their defaults, their checks, and the arguments as plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import Field, field
from typing import Any, TypeVar, get_args

Value = TypeVar("Value")


def at_least(least: float, default: Value) -> Value:
    """Field of a number that is not below ``least``; see :func:`check_at_least`."""
    return _checked(default, lambda method, name: check_at_least(method, least, name))


def above(bound: float, default: Value) -> Value:
    """Field of a number above ``bound``; see :func:`check_above`."""
    return _checked(default, lambda method, name: check_above(method, bound, name))


def fraction(default: Value) -> Value:
    """Field of a number in [0, 1]; see :func:`check_share`."""
    return _checked(default, check_share)


def choice(choices: Any, default: Value) -> Value:
    """Field of a word that is one of ``choices``; see :func:`check_choice`."""
    return _checked(default, lambda method, name: check_choice(method, name, choices))


def pattern(default: Value) -> Value:
    """Field of a regular expression; see :func:`check_pattern`."""
    return _checked(default, check_pattern)


def converted(convert: Callable[[Any], Any], default: Value) -> Value:
    """Field of a value that is kept as ``convert`` makes it, or refused by it."""
    return _checked(default, lambda method, name: setattr(method, name, convert(getattr(method, name))))


def _checked(default: Value, check: Callable[[Any, str], None]) -> Value:
    """Field of a dataclass with one more check; the default may be a field that has some."""
    known: Any = default if isinstance(default, Field) else field(default=default)
    checked: Value = field(default=known.default, metadata={"checks": (*known.metadata.get("checks", ()), check)})
    return checked


def check_fields(method: Any) -> None:
    """Check all arguments whose range a class of the method states, or one that it is derived from.

    Raises:
        ValueError: Names the argument, what was given and what is expected.
    """
    fields = (item for owner in type(method).__mro__ for item in vars(owner).get("__dataclass_fields__", {}).items())
    # A derived class has the fields of its base, too: each check is made once.
    stated = dict.fromkeys((name, check) for name, known in fields for check in known.metadata.get("checks", ()))
    for name, check in stated:
        check(method, name)


def check_at_least(method: Any, least: float, *names: str) -> None:
    """Refuse numbers below ``least``; ``None`` stands for a default and is not looked at.

    Raises:
        ValueError: Names the argument, what was given and what is expected.
    """
    for name in names:
        value = getattr(method, name)
        if value is not None and not value >= least:
            raise ValueError(f"`{name}` is {value}; give at least {least}.")


def check_above(method: Any, bound: float, *names: str) -> None:
    """Refuse numbers that are not above ``bound``.

    Raises:
        ValueError: Names the argument, what was given and what is expected.
    """
    for name in names:
        value = getattr(method, name)
        if value is not None and not value > bound:
            raise ValueError(f"`{name}` is {value}; give a number above {bound}.")


def check_share(method: Any, *names: str) -> None:
    """Refuse numbers outside [0, 1].

    Raises:
        ValueError: Names the argument, what was given and what is expected.
    """
    for name in names:
        value = getattr(method, name)
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` is {value}; give a number in [0, 1].")


def check_choice(method: Any, name: str, choices: Any) -> None:
    """Refuse a word that is none of ``choices``, a ``Literal`` or a sequence.

    Raises:
        ValueError: Names the argument, what was given and what is expected.
    """
    known: Sequence[Any] = get_args(choices) or choices
    value = getattr(method, name)
    if value not in known:
        raise ValueError(f"`{name}` is {value!r}; give one of {', '.join(map(repr, known))}.")


def check_pattern(method: Any, name: str) -> None:
    """Refuse a text that is no regular expression.

    Raises:
        ValueError: Names the argument, what was given and what is expected.
    """
    value = getattr(method, name)
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"`{name}` is {value!r}, which is no regular expression ({error}); mend it.") from None


def plain(values: dict[str, Any]) -> dict[str, Any] | None:
    """The values as JSON gives them back, with lists for tuples; ``None`` if something would be lost on the way."""
    try:
        back: dict[str, Any] = json.loads(json.dumps(values))
    except (TypeError, ValueError):
        return None
    return back if back == _with_lists(values) else None


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
