"""Looks at the fields of a report's file, which somebody may have edited, before they are used."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor


def check_fields(cls: type, values: Mapping[str, Any]) -> None:
    """Refuse values of other types than the fields of ``cls`` have.

    Raises:
        ValueError: With the field, its value and its type.
    """
    hints = get_type_hints(cls)
    for name, value in values.items():
        if not matches(value, hints[name]):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            raise ValueError(f"the field `{name}` is {shown}, but it is of the type {_text(hints[name])}")


def matches(value: Any, hint: Any) -> bool:
    """Whether a value from JSON, with tensors in the place of numbers, is of a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(matches(value, part) for part in inner)
    if origin is list:
        return isinstance(value, list) and all(matches(item, inner[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(matches(item, inner[1]) for item in value.values())
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _text(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return text.replace("typing.", "").replace("collections.abc.", "").replace(f"{Tensor.__module__}.", "")
