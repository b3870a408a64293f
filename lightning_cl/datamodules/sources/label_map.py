"""Labels that are no ids 0..C-1 yet: class names, ids with gaps, and ids that start at 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sources.labels import (
    ClassNames,
    as_ids,
    check_ids,
    default_names,
    names_by_id,
    ordered_names,
    plain_column,
)

#: ``"compact"``: number the labels that occur in the training split 0..C-1, in ascending order.
LabelMap = Literal["compact"]
_HINT = ', or pass `label_map="compact"` to have it done'


class MappedLabels(NamedTuple):
    """Ids 0..C-1 of both splits, the classes' names, and whether the ids differ from the labels as given."""

    train: Tensor
    test: Tensor
    names: tuple[str, ...]
    changed: bool


def check_label_map(label_map: str | None) -> None:
    """Raise a ``ValueError`` if ``label_map`` is unknown."""
    if label_map not in (None, "compact"):
        raise ValueError(f"`label_map` is {label_map!r}; expected 'compact' or None.")


def label_values(values: Any, what: str) -> np.ndarray:
    """Labels of one split, ``(N,)``: int64, or text where classes are given by name.

    Args:
        values: Tensor, array, sequence or one-column frame of integers or names.
        what: Name of the labels in an error message.

    Raises:
        ValueError: If they are of another kind or shape.
    """
    values = plain_column(values, what)
    if isinstance(values, (list, tuple)) and values and all(isinstance(value, str) for value in values):
        values = np.array(values, dtype=str)
    if isinstance(values, np.ndarray) and values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind not in "iufbc":
        return values.astype(str)
    ids: np.ndarray = as_ids(values, what).numpy()
    return ids


def map_labels(
    train: Any,
    test: Any,
    class_names: ClassNames | None = None,
    label_map: LabelMap | None = None,
    what: tuple[str, str] = ("train labels", "test labels"),
) -> MappedLabels:
    """Class ids of labels as they are given.

    Names get the ids of ``class_names``, else those of their sorted order (in which "10" comes before "9"). With
    ``label_map="compact"`` the labels of the training split are then renumbered in ascending order; ``class_names``
    may name them by label, or only those that occur, in that order.

    Args:
        train: ``(N_train,)`` integers or names, see :func:`label_values`.
        test: ``(N_test,)``, of the same kind.
        class_names: A list, ``{name: id}`` or ``{id: name}``; ``None``: the labels' own names, else the numbers.
        label_map: ``"compact"``, or ``None``: integers stay as they are.
        what: Names of the labels in error messages.

    Raises:
        ValueError: If labels are neither integers nor names, are a mixture, are not among ``class_names``, or are not
            ``0 .. C-1`` with training samples each in the end.
    """
    check_label_map(label_map)
    parts = [label_values(train, what[0]), label_values(test, what[1])]
    named = [part.dtype.kind == "U" for part in parts]
    if any(named) and not all(one or not len(part) for one, part in zip(named, parts, strict=True)):
        kinds = ["names" if one else "integers" for one in named]
        raise ValueError(
            f"`{what[0]}` must be integers, or names in both splits, but they are {kinds[0]} and `{what[1]}` are "
            f"{kinds[1]}; give both the same kind."
        )
    if any(named):
        parts, class_names = _ids_of_names(parts, class_names)
    ids = [torch.from_numpy(part.astype(np.int64)) for part in parts]
    names = _compact(ids, class_names) if label_map == "compact" else None
    if names is None:
        names = ordered_names(class_names) if class_names is not None else default_names(*ids)
    changed = any(named) or any(not np.array_equal(old, new) for old, new in zip(parts, ids, strict=True))
    check_ids(ids[0], ids[1], names, "class", "" if label_map else _HINT)
    return MappedLabels(ids[0], ids[1], names, changed)


def _ids_of_names(parts: list[np.ndarray], class_names: ClassNames | None) -> tuple[list[np.ndarray], ClassNames]:
    """Ids of labels that are names, and the names that have them."""
    found, inverse = np.unique(np.concatenate([part.astype(str) for part in parts]), return_inverse=True)
    if class_names is None:
        known = {number: str(name) for number, name in enumerate(found)}
    else:
        known = names_by_id(class_names)
    id_of = {name: number for number, name in known.items()}
    unknown = [str(name) for name in found if str(name) not in id_of]
    if unknown:
        raise ValueError(f"the classes {unknown[:10]} of the set are not in `class_names`; add them.")
    ids = np.array([id_of[str(name)] for name in found], dtype=np.int64)[inverse]
    return np.split(ids, [len(parts[0])]), known


def _compact(ids: list[Tensor], class_names: ClassNames | None) -> tuple[str, ...]:
    """Renumber labels in place by their rank among the training labels; the names of those that are left."""
    kept, ids[0] = torch.unique(ids[0], return_inverse=True)
    outside = torch.unique(ids[1][~torch.isin(ids[1], kept)]).tolist()
    if outside:
        raise ValueError(
            f"the test labels {outside[:10]} have no training samples, so `label_map='compact'` has no number for "
            "them; leave these test samples out."
        )
    ids[1] = torch.searchsorted(kept, ids[1])
    old = kept.tolist()
    if class_names is None:
        return tuple(map(str, old))
    known = names_by_id(class_names)
    if not isinstance(class_names, Mapping) and len(known) == len(old):
        return tuple(known.values())
    missing = [label for label in old if label not in known]
    if missing:
        raise ValueError(
            f"`class_names` has {len(known)} names, but none for the labels {missing[:10]}; give one for each of the "
            f"{len(old)} labels that occur in ascending order, or a dictionary {{label: name}}."
        )
    return tuple(known[label] for label in old)
