"""Checks of a method's arguments, in one form of words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args


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


def check_views(method: Any) -> None:
    """Refuse arguments that no random view of an image can have (:class:`~lightning_cl.training.contrast.View`).

    Raises:
        ValueError: Names the argument, what was given and what is expected.
    """
    check_above(method, 0, "least_area")
    check_share(method, "least_area", "gray")
    check_at_least(method, 0, "jitter")


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
