"""Items of a data set as they come: tuples, named tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Names that a label has in dictionaries, by precedence.
TARGET_KEYS = ("label", "labels", "target", "targets", "y")


def replace_label(item: Any, change: Callable[[Any], Any], key: str | None = None) -> Any:
    """The item with a changed label, of the same type.

    Args:
        item: ``(image, label, ...)``, or a dictionary.
        change: Makes the new label of the old one.
        key: Of the label in a dictionary; ``None``: the first of ``label``, ``labels``, ``target``, ``targets``, ``y``.

    Raises:
        ValueError: If the label is not found.
    """
    if isinstance(item, (tuple, list)) and len(item) > 1:
        changed = (item[0], change(item[1]), *item[2:])
        return type(item)(*changed) if hasattr(item, "_fields") else type(item)(changed)
    keys = TARGET_KEYS if key is None else (key,)
    found = next((name for name in keys if isinstance(item, dict) and name in item), None)
    if found is None:
        raise ValueError(
            f"the label of an item of the source was not found in a {type(item).__name__}; give items "
            f"(image, label) or dictionaries with one of the keys {', '.join(keys)}."
        )
    return {**item, found: change(item[found])}
