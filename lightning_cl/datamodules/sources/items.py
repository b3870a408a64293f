"""Items of a data set as they come: tuples, named tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_cl.datamodules.batch_form import TARGET_KEYS, find_places, has_place, part_at, with_part


def replace_label(item: Any, change: Callable[[Any], Any], key: str | None = None) -> Any:
    """The item with a changed label, of the same type.

    Args:
        item: ``(image, label, ...)``, or a dictionary.
        change: Makes the new label of the old one.
        key: Of the label in a dictionary; ``None``: the first of ``label``, ``labels``, ``target``, ``targets``, ``y``.

    Raises:
        ValueError: If the label is not found.
    """
    place = key if key is not None and isinstance(item, dict) else find_places(item)[1]
    if place is None or not has_place(item, place):
        keys = TARGET_KEYS if key is None else (key,)
        raise ValueError(
            f"the label of an item of the source was not found in a {type(item).__name__}; give items "
            f"(image, label) or dictionaries with one of the keys {', '.join(keys)}."
        )
    return with_part(item, place, change(part_at(item, place)))
