"""Finds inputs and targets in an item or a batch: dictionary, named tuple, tuple or list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_cl.datamodules.task import HIDDEN_LABEL

INPUT_KEYS = ("image", "images", "pixel_values", "img", "x", "input", "inputs")
#: What a tokenizer gives; all that are there are inputs of the model.
TEXT_KEYS = ("input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "position_ids")
TARGET_KEYS = ("label", "labels", "target", "targets", "y")

#: A key of a dictionary, a field of a named tuple, or a position.
Place = str | int
#: Places of the inputs (one, or several) and of the targets.
BatchKeys = tuple[Place | Sequence[Place], Place]


def input_places(keys: BatchKeys) -> tuple[Place, ...]:
    """The places of the inputs, also where it is only one."""
    return (keys[0],) if isinstance(keys[0], (str, int)) else tuple(keys[0])


def check_batch_keys(keys: Any) -> None:
    """Check that two places are named, the first of which may be several.

    Raises:
        ValueError: If they are not.
    """
    fits = isinstance(keys, (tuple, list)) and len(keys) == 2 and isinstance(keys[1], (str, int))
    inputs = input_places((keys[0], "")) if fits and isinstance(keys[0], (str, int, tuple, list)) else ()
    if not inputs or not all(isinstance(place, (str, int)) for place in inputs):
        raise ValueError(
            f'`batch_keys` is {keys!r}; name image and label, as in ("pixel_values", "labels"), several inputs, '
            'as in (("input_ids", "attention_mask"), "labels"), or positions, as in (1, 2) for (index, image, label).'
        )


def fields_of(batch: Any) -> tuple[str, ...]:
    """Keys of a dictionary or fields of a named tuple; nothing else has names."""
    if isinstance(batch, Mapping):
        return tuple(batch)
    return tuple(getattr(batch, "_fields", ())) if isinstance(batch, tuple) else ()


def has_place(batch: Any, place: Place) -> bool:
    """Whether an item or a batch has a part there."""
    if isinstance(batch, Mapping) or isinstance(place, str):
        return place in fields_of(batch)
    return isinstance(batch, (tuple, list)) and -len(batch) <= place < len(batch)


def part_at(batch: Any, place: Place) -> Any:
    """The part at a place that :func:`has_place`."""
    if isinstance(place, str) and not isinstance(batch, Mapping):
        return getattr(batch, place)
    return batch[place]


def with_part(batch: Any, place: Place, value: Any) -> Any:
    """An item of the same type with another part at a place."""
    if isinstance(batch, Mapping):
        return {**batch, place: value}
    position = batch._fields.index(place) if isinstance(place, str) else range(len(batch))[place]
    parts = (*batch[:position], value, *batch[position + 1 :])
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)


def find_places(batch: Any, keys: BatchKeys | None = None) -> tuple[tuple[Place, ...], Place | None]:
    """Places of the inputs and of the targets; empty or ``None`` where there is nothing of the kind.

    Those that ``keys`` names, if the batch has all of them; else by the usual names; else by position: ``(inputs,
    targets, ...)``, ``(index, inputs, targets)``, or ``(view, view, targets)``, of which the first view is taken.

    Args:
        batch: An item or a batch.
        keys: What the user named.
    """
    if keys is not None and all(has_place(batch, place) for place in (*input_places(keys), keys[1])):
        return input_places(keys), keys[1]
    names = fields_of(batch)
    inputs: tuple[Place, ...] = next(((key,) for key in INPUT_KEYS if key in names), ())
    inputs = inputs or tuple(key for key in TEXT_KEYS if key in names)
    target = next((key for key in TARGET_KEYS if key in names), None)
    if isinstance(batch, Mapping) or (inputs and target is not None):
        return inputs, target
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        return (), None
    return _by_position(batch)


def _by_position(batch: Sequence[Any]) -> tuple[tuple[Place, ...], Place]:
    if len(batch) > 2 and _are_ids(batch[2]):
        if _are_ids(batch[0]) and not _are_ids(batch[1]):
            return (1,), 2
        if _shape(batch[0]) is not None and _shape(batch[0]) == _shape(batch[1]):
            return (0,), 2
    return (0,), 1


def _are_ids(part: Any) -> bool:
    """Whether a part is one integer, or one for each sample."""
    if isinstance(part, Tensor):
        return part.ndim < 2 and not part.is_floating_point()
    return isinstance(part, int)


def _shape(part: Any) -> tuple[int, ...] | None:
    """Shape of a part that can be an input; ``None`` for numbers and vectors of them."""
    shape = getattr(part, "shape", None) or getattr(part, "size", None)  # a PIL image has a size
    return tuple(shape) if isinstance(shape, (tuple, list)) and len(shape) > 1 else None


def with_transformed(item: Any, transform: Callable[[Any], Any], keys: BatchKeys | None = None) -> Any:
    """An item with its image, the first of its inputs, transformed.

    Raises:
        ValueError: If a dictionary has no image.
    """
    if type(item) is tuple and len(item) == 2 and keys is None:  # the usual item, without a look at its names
        return transform(item[0]), item[1]
    if not isinstance(item, (Mapping, tuple, list)):
        return transform(item)
    places, _ = find_places(item, keys)
    if places:
        return with_part(item, places[0], transform(part_at(item, places[0])))
    if not isinstance(item, Mapping):  # of one part
        return with_part(item, 0, transform(item[0]))
    raise ValueError(
        f"no image found in an item with the keys {sorted(item)} (looked for {', '.join(INPUT_KEYS)}); "
        "rename the key, or transform the items in your data set and pass no transform to the stream."
    )


def without_target(item: Any, keys: BatchKeys | None = None) -> Any:
    """An item with ``HIDDEN_LABEL`` in the place of its target, if it has one."""
    _, place = find_places(item, keys)
    return item if place is None or not has_place(item, place) else with_part(item, place, HIDDEN_LABEL)


def with_names(item: Any, keys: BatchKeys) -> Any:
    """A tuple as a dictionary with the named keys; other items, and those that have these places, as they are.

    Raises:
        ValueError: If the tuple has fewer parts than there are names.
    """
    places = (*input_places(keys), keys[1])
    if not isinstance(item, (tuple, list)) or not all(isinstance(place, str) for place in places):
        return item
    if fields_of(item) and all(has_place(item, place) for place in places):
        return item
    if len(item) < len(places):
        raise ValueError(
            f"`batch_keys` names {len(places)} parts ({', '.join(map(str, places))}), but an item of the data has "
            f"{len(item)}; name as many, in their order."
        )
    if len(places) > 2:
        return dict(zip(places, item, strict=False))
    (image, *_), label = find_places(item)
    assert label is not None
    return {places[0]: part_at(item, image), places[1]: part_at(item, label)}
