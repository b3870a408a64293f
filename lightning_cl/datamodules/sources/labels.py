"""Labels and class names as they are given: tensors, arrays, pandas columns, lists and dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: One name per class; or ``{name: id}`` (``class_to_idx``), or ``{id: name}`` (``id2label``).
ClassNames = Sequence[str] | Mapping[Any, Any]


def plain_column(values: Any, what: str) -> Any:
    """A column of pandas, polars or PyArrow, or an array of objects, as a plain array; anything else as it is.

    Args:
        values: What was given.
        what: Name of the values in an error message.

    Raises:
        ValueError: If a frame has several columns, values are missing, or objects are neither integers nor text.
    """
    is_column = hasattr(values, "to_numpy")
    if is_column:
        columns = getattr(values, "columns", ())
        values = values.to_numpy()  # by position: an index is a name, not a place
        if values.ndim == 2 and values.shape[1] != 1:
            shown = ", ".join(repr(str(name)) for name in columns)
            raise ValueError(f"`{what}` is a table with the columns {shown}; give the one that holds the labels.")
        values = values.reshape(-1)
    if isinstance(values, np.ndarray) and values.dtype == object:
        return _unboxed(values, what)
    if is_column and values.dtype.kind == "f":
        _check_present(np.isnan(values), what)
    return values


def _unboxed(values: np.ndarray, what: str) -> np.ndarray:
    plain = [value.item() if hasattr(value, "item") else value for value in values.tolist()]
    _check_present(np.array([_is_missing(value) for value in plain], dtype=bool), what)
    kinds = set(map(type, plain))
    if all(issubclass(kind, str) for kind in kinds):
        return np.array(plain, dtype=str)
    if all(issubclass(kind, Integral) and not issubclass(kind, bool) for kind in kinds):
        return np.array(plain, dtype=np.int64)
    shown = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ValueError(f"`{what}` must be integers, one per sample, but they are objects of the types {shown}.")


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # of pandas
        return True
    return isinstance(value, float) and value != value


def _check_present(missing: np.ndarray, what: str) -> None:
    if missing.any():
        rows = missing.nonzero()[0]
        raise ValueError(
            f"{len(rows)} of {len(missing)} `{what}` are missing, the first at position {rows[0]}; drop these samples, "
            "or label them."
        )


def names_by_id(names: ClassNames) -> dict[int, str]:
    """Name of each class id, from a list of names, ``{name: id}`` or ``{id: name}``.

    Raises:
        ValueError: If a dictionary is of another kind, or two classes have one id or one name.
    """
    if not isinstance(names, Mapping):
        pairs = [(number, str(name)) for number, name in enumerate(names)]
    elif all(isinstance(name, str) and _is_number(number) for name, number in names.items()):
        pairs = [(int(number), name) for name, number in names.items()]
    elif all(isinstance(name, str) and str(number).isdecimal() for number, name in names.items()):
        pairs = [(int(number), name) for number, name in names.items()]  # JSON has its keys as text
    else:
        raise ValueError(
            f"`class_names` is the dictionary {str(dict(names))[:100]}; give a list of names, {{name: id}} as in "
            "`class_to_idx`, or {id: name} as in `id2label`."
        )
    for what, values in (("ids", [number for number, _ in pairs]), ("names", [name for _, name in pairs])):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise ValueError(
                f"the class {what} {twice[:10]} are there more than once; give every class one of its own with "
                "`class_names=`."
            )
    return dict(pairs)


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def ordered_names(names: ClassNames) -> tuple[str, ...]:
    """One name per class, indexed by its id.

    Raises:
        ValueError: As :func:`names_by_id`, or if ids leave a gap.
    """
    known = names_by_id(names)
    missing = sorted(set(range(max(known, default=-1) + 1)) - set(known))
    if missing:
        raise ValueError(
            f"`class_names` has no name for the class ids {missing[:10]}; give one for each of 0..{max(known)}."
        )
    return tuple(known[number] for number in range(len(known)))


def as_ids(values: Any, what: str) -> Tensor:
    """Labels or domains as a ``(N,)`` int64 tensor.

    Args:
        values: Tensor, array, sequence or one-column frame of integers; of pandas by position, whatever the index.
        what: Name of the values in an error message.

    Raises:
        ValueError: If ``values`` is not one-dimensional or does not hold integers.
    """
    values = plain_column(values, what)
    try:
        if isinstance(values, np.ndarray) and values.dtype.kind == "u":
            values = values.astype(np.int64)  # files often hold uint16, of which PyTorch knows little
        elif isinstance(values, np.ndarray) and not values.flags.writeable:
            values = values.copy()  # a view into a data frame, of which PyTorch would warn
        ids = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{what}` must be integers, one per sample, but they could not be read: {error}") from error
    if ids.numel() and (ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex()):
        raise ValueError(f"`{what}` must be integers 0..C-1, but they are {ids.dtype}; convert them to integers.")
    if ids.ndim != 1:
        raise ValueError(f"`{what}` must be one integer per sample, shape (N,), but the shape is {tuple(ids.shape)}.")
    return ids.to(device="cpu", dtype=torch.int64)


def check_ids(train: Tensor, test: Tensor, names: Sequence[str], kind: str, hint: str = "") -> None:
    """Check that ids run from 0 to ``len(names) - 1`` and that each one has training samples.

    A test split may lack some ids; they are simply never evaluated.

    Args:
        train: ``(N_train,)`` int64.
        test: ``(N_test,)`` int64.
        names: One name per id.
        kind: ``"class"`` or ``"domain"``, for the message.
        hint: What else can be done about ids without samples, for the message.

    Raises:
        ValueError: If an id is out of range or has no training sample.
    """
    for split, ids in (("train", train), ("test", test)):
        outside = torch.unique(ids[(ids < 0) | (ids >= len(names))]).tolist()
        if outside:
            raise ValueError(
                f"the {split} split has the {kind} ids {outside[:10]}, but they must be integers 0..{len(names) - 1} "
                f"({len(names)} {kind} names are known); renumber them from 0, or give a name for every {kind}."
            )
    counts = torch.bincount(train, minlength=len(names))
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        shown = ", ".join(f"{i} ({names[i]!r})" for i in empty[:10])
        raise ValueError(
            f"{len(empty)} of {len(names)} {kind} ids have no training samples: {shown}; remove them and number the "
            f"others 0..{len(names) - len(empty) - 1}, or add samples{hint}."
        )


def default_names(*ids: Tensor | None) -> tuple[str, ...]:
    """``("0", "1", ...)`` up to the largest id."""
    highest = max((int(i.max()) for i in ids if i is not None and len(i)), default=-1)
    return tuple(str(i) for i in range(highest + 1))
