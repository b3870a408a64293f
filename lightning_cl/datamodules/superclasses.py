"""Superclasses of classes: a label tree, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Superclasses(NamedTuple):
    """The superclasses above the classes, level by level, coarsest first.

    Attributes:
        ancestors: For each level the number of each class's superclass there.
        names: For each level the names of its superclasses.
    """

    ancestors: tuple[tuple[int, ...], ...]
    names: tuple[tuple[str, ...], ...]


def read_superclasses(given: Any, class_names: Sequence[str], names: Sequence[str] | None = None) -> Superclasses:
    """The superclasses of classes, checked.

    Args:
        given: One superclass for each class, in the order of the classes: numbers from 0, or names; or a dictionary
            that has for the name of every class, and of every superclass below another, the name above it.
        class_names: One per class.
        names: Of the superclasses that are given as numbers; the numbers when ``None``.

    Raises:
        ValueError: If a class has no superclass, the tree has a cycle, classes are at different depths, or numbers and
            names do not fit together.
    """
    if isinstance(given, Mapping):
        return _of_paths(_paths({str(child): str(above) for child, above in given.items()}, class_names))
    values = given.tolist() if hasattr(given, "tolist") else list(given)
    orphans = [class_names[c] for c, above in enumerate(values[: len(class_names)]) if above in (None, "", -1)]
    orphans += class_names[len(values) :]
    if orphans:
        raise ValueError(
            f"the class {orphans[0]!r} has no superclass in `superclass_of_class`; give one for each of the "
            f"{len(class_names)} classes."
        )
    if len(values) > len(class_names):
        raise ValueError(
            f"`superclass_of_class` has {len(values)} entries, but there are {len(class_names)} classes; give one each."
        )
    if all(isinstance(above, str) for above in values):
        return _of_paths([[above] for above in values])
    return _of_numbers(values, names)


def _of_numbers(values: list[Any], names: Sequence[str] | None) -> Superclasses:
    numbers = np.asarray(values)
    count = len(names) if names is not None else int(numbers.max()) + 1 if numbers.dtype.kind in "iu" else 0
    if numbers.dtype.kind not in "iu" or set(numbers.tolist()) != set(range(count)):
        raise ValueError(
            f"`superclass_of_class` must hold the numbers 0..{max(count - 1, 0)} of the superclasses, each at least "
            f"once, or their names, but holds {sorted(set(map(str, values)))[:10]}; renumber them, or give names."
        )
    return Superclasses((tuple(numbers.tolist()),), (tuple(map(str, range(count) if names is None else names)),))


def _paths(above: Mapping[str, str], class_names: Sequence[str]) -> list[list[str]]:
    """For each class the names above it, coarsest first."""
    paths = []
    for name in class_names:
        if name not in above:
            raise ValueError(
                f"the class {name!r} has no superclass in `superclass_of_class`; give one for each of the "
                f"{len(class_names)} classes."
            )
        path: list[str] = [name]
        while path[-1] in above:
            path.append(above[path[-1]])
            if path[-1] in path[:-1]:
                cycle = path[path.index(path[-1]) :]
                raise ValueError(
                    f"`superclass_of_class` has the cycle {' -> '.join(cycle)}; a label tree has none: leave out one "
                    "of these entries."
                )
        paths.append(path[:0:-1])
    return paths


def _of_paths(paths: list[list[str]]) -> Superclasses:
    depths = sorted({len(path) for path in paths})
    if len(depths) > 1:
        raise ValueError(
            f"`superclass_of_class` puts some classes {depths[0]} and others {depths[-1]} levels deep; give all "
            "classes the same number of levels."
        )
    columns = list(zip(*paths, strict=True))
    names = tuple(tuple(sorted(set(column))) for column in columns)
    found = (tuple(of.index(name) for name in column) for of, column in zip(names, columns, strict=True))
    return Superclasses(tuple(found), names)


def of_some(known: Superclasses, kept: Sequence[int]) -> Superclasses:
    """The superclasses of some of the classes, without those that none of these has."""
    ancestors, names = [], []
    for row, named in zip(known.ancestors, known.names, strict=True):
        used = sorted({row[c] for c in kept})
        ancestors.append(tuple(used.index(row[c]) for c in kept))
        names.append(tuple(named[above] for above in used))
    return Superclasses(tuple(ancestors), tuple(names))


def with_own_level(ancestors: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The levels of a label tree, coarsest first, with the classes themselves as the last; nothing without a tree."""
    return (*map(tuple, ancestors), tuple(range(len(ancestors[0])))) if ancestors else ()


def level_of_each(levels: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The level of each class: the last at which it has an ancestor (itself)."""
    return tuple(sum(above >= 0 for above in column) - 1 for column in zip(*levels, strict=True))
