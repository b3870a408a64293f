"""Class-incremental learning: every task brings classes that no other task holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from lightning_cl.datamodules.argument_kinds import as_count
from lightning_cl.datamodules.scenarios.base import Scenario, by_new_class, check_every_class
from lightning_cl.datamodules.scenarios.orders import OrderRule, class_order, with_ids

if TYPE_CHECKING:
    from lightning_cl.datamodules.sources.base import Source

Remainder = Literal["error", "first", "last"]


def even_sizes(count: int, parts: int, remainder: Remainder = "error") -> list[int] | None:
    """``count`` classes in ``parts`` tasks whose sizes differ by at most one; ``None`` if they must not differ.

    ``"first"`` gives the larger sizes to the first tasks (10 in 3: ``[4, 3, 3]``), ``"last"`` to the last ones.
    """
    base, extra = divmod(count, parts)
    if extra and remainder == "error":
        return None
    sizes = [base + 1] * extra + [base] * (parts - extra)
    return sizes if remainder != "last" else sizes[::-1]


def task_sizes(
    num_classes: int,
    num_tasks: int | None = None,
    classes_per_task: int | Sequence[int] | None = None,
    first_task_classes: int | None = None,
    remainder: Remainder = "error",
) -> list[int]:
    """Number of classes in each task, each at least 1, which add up to ``num_classes``.

    Raises:
        ValueError: If the arguments do not divide the classes among the tasks; see :class:`ClassIncremental`.
    """
    if isinstance(classes_per_task, int):
        return _equal_sizes(num_classes, classes_per_task, first_task_classes, remainder)
    if classes_per_task is not None:
        sizes = list(classes_per_task)
        if sum(sizes) != num_classes:
            base = f"`first_task_classes={sizes[0]}, classes_per_task={sizes[-1]}`"
            hint = f" (a base session with increments is {base})" if len(sizes) == 2 else ""
            raise ValueError(
                f"`classes_per_task` {sizes} adds up to {sum(sizes)} but there are {num_classes} classes; "
                f"every class must be in one task{hint}."
            )
        return sizes
    assert num_tasks is not None
    if num_tasks > num_classes:
        raise ValueError(f"`num_tasks` is {num_tasks} but there are {num_classes} classes; use at most {num_classes}.")
    if first_task_classes is None:
        even = even_sizes(num_classes, num_tasks, remainder)
        if even is None:
            raise ValueError(
                f"`num_tasks` is {num_tasks} but there are {num_classes} classes, which {num_tasks} does not divide; "
                'pass `remainder="first"` or `remainder="last"` for tasks of unequal size, or '
                f"`classes_per_task={even_sizes(num_classes, num_tasks, 'first')}`."
            )
        return even
    return [first_task_classes, *_later_sizes(num_classes, num_tasks - 1, first_task_classes, remainder)]


def _equal_sizes(num_classes: int, size: int, first: int | None, remainder: Remainder) -> list[int]:
    """A base session, if there is one, and tasks of one size; a smaller task of what is left comes first or last."""
    base = [] if first is None else [first]
    full, rest = divmod(num_classes - sum(base), size)
    if full < 0 or (rest and remainder == "error"):
        left = "" if first is None else f"`first_task_classes` is {first}, and "
        raise ValueError(
            f"{left}`classes_per_task` is {size}, but there are {num_classes} classes, which cannot be divided so; "
            'pass `remainder="first"` or `remainder="last"` for a smaller task, or the number for each task, such as '
            f"`classes_per_task={[*base, *[size] * max(full, 0), *[rest] * (rest > 0 <= full)]}`."
        )
    left_over = [rest] * (rest > 0)
    return [*base, *left_over, *[size] * full] if remainder == "first" else [*base, *[size] * full, *left_over]


def _later_sizes(num_classes: int, later: int, first: int, remainder: Remainder) -> list[int]:
    left = num_classes - first
    if left < later or (later == 0 and left > 0):
        raise ValueError(
            f"`first_task_classes` is {first} and leaves {left} of {num_classes} classes for {later} later tasks; "
            "every task needs at least one class and every class a task."
        )
    even = even_sizes(left, later, remainder) if later else []
    if even is None:
        raise ValueError(
            f"`first_task_classes` is {first} and leaves {left} of {num_classes} classes for {later} later tasks, "
            f'which {later} does not divide; pass `remainder="first"` or `remainder="last"` for tasks of unequal '
            f"size, or `classes_per_task={[first, *(even_sizes(left, later, 'first') or [])]}`."
        )
    return even


def plain_sizes(given: Any) -> int | list[Any]:
    """Classes per task as plain numbers or lists of classes, whatever arrays they came in.

    Raises:
        ValueError: If there is no task or an empty one, or numbers and lists are mixed.
    """
    values = _listed(given)
    values = [_listed(held) for held in values] if isinstance(values, list) else values
    tasks = values if isinstance(values, list) else [values]
    sizes = [len(held) if isinstance(held, list) else held for held in tasks]
    if any(type(size) is not int for size in sizes) or len({type(held) for held in tasks}) > 1:
        raise ValueError(
            f"`classes_per_task` is {given!r}; give one number for all tasks, one for each, or for each the list of "
            "its classes."
        )
    if not sizes or min(sizes) < 1:
        raise ValueError(f"`classes_per_task` is {values}; every task needs at least 1 class.")
    return values


def _listed(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's and PyTorch's
    return list(value) if isinstance(value, (tuple, range)) else value


class ClassIncremental(Scenario):
    """Every task brings new classes, and no class comes back.

    Task-incremental learning is the same stream, evaluated with the task known: its accuracy is measured beside the
    class-incremental one, and ``ContinualDataModule(task_identity=True)`` tells the task to methods. A
    base session with increments (the ``init_cls`` and ``increment`` of PyCIL and PILOT) is ``first_task_classes=50,
    classes_per_task=10``.

    Args:
        num_tasks: Number of tasks of equal size; left out if ``classes_per_task`` is given.
        classes_per_task: Number of classes in every task, for example ``10``; in each, for example
            ``[50, 10, 10, 10, 10, 10]``; or the classes of each task themselves, ids or names, for example
            ``[["cat", "dog"], ["ship", "car"]]``.
        first_task_classes: Number of classes in the first task; the others share the rest equally, or have one number
            ``classes_per_task`` each.
        class_order: ``"shuffled"``: from the seed (1993 gives the order of iCaRL, PyCIL and PILOT); ``"natural"``: by
            id; ``"coda_prompt"``: the order of the CODA-Prompt and OVOR code for trial ``seed``; a list of all ids or
            names; or a file of them (``.txt`` with one on each line, ``.json`` or ``.npy``).
        seed: Seed of the class order; ``None``: the stream's.
        remainder: Who gets the classes that are left where ``num_tasks`` does not divide them: the ``"first"`` or the
            ``"last"`` tasks, one each (10 classes in 3 tasks: 4, 3, 3 or 3, 3, 4); ``"error"``: nobody. With one number
            ``classes_per_task`` they are a smaller task of their own, the ``"first"`` (behind a base session) or the
            ``"last"``.

    Raises:
        ValueError: If not exactly one of ``num_tasks`` and ``classes_per_task`` is given or a number is below 1; and
            from :meth:`train_tasks` if the classes cannot be divided so.
    """

    def __init__(
        self,
        num_tasks: int | None = None,
        classes_per_task: int | Sequence[int] | Sequence[Sequence[int | str]] | None = None,
        first_task_classes: int | None = None,
        class_order: OrderRule | str | os.PathLike[str] | Sequence[int | str] = "shuffled",
        seed: int | None = None,
        remainder: Remainder = "error",
    ) -> None:
        if (num_tasks is None) == (classes_per_task is None):
            both = num_tasks is not None and isinstance(classes_per_task, int)
            steps = f" (a base session with increments is `first_task_classes={num_tasks}, {classes_per_task=}`)"
            raise ValueError(
                f"`num_tasks` is {num_tasks} and `classes_per_task` is {classes_per_task}; give exactly one of them"
                f"{steps if both else ''}."
            )
        sizes = None if classes_per_task is None else plain_sizes(classes_per_task)
        if isinstance(sizes, list) and first_task_classes is not None:
            raise ValueError("`classes_per_task` already says how large the first task is; drop `first_task_classes`.")
        for name, value in (("num_tasks", num_tasks), ("first_task_classes", first_task_classes)):
            if value is not None and as_count(name, value) < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")
        if remainder not in ("error", "first", "last"):
            raise ValueError(f"`remainder` is {remainder!r}; expected 'error', 'first' or 'last'.")
        if isinstance(sizes, list) and isinstance(sizes[0], list):
            if not isinstance(class_order, str) or class_order != "shuffled":
                raise ValueError("`classes_per_task` already says which class comes when; drop `class_order`.")
            class_order, sizes = [c for held in sizes for c in held], [len(held) for held in sizes]
        self.num_tasks, self.classes_per_task = num_tasks, sizes
        self.first_task_classes, self.remainder = first_task_classes, remainder
        self.class_order, self.seed = class_order, seed

    def for_source(self, source: Source) -> Scenario:
        """With the source's ids for names and files."""
        return with_ids(self, "class_order", source.class_names)

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples, sorted ascending: disjoint, and together all of them."""
        held = self.held_classes(num_classes, seed)
        check_every_class(labels, num_classes)
        return by_new_class(labels, held)

    def held_classes(self, num_classes: int, seed: int) -> list[Sequence[int]]:
        """Class ids that each task brings, in the order of arrival; arguments as of :meth:`train_tasks`."""
        sizes = task_sizes(num_classes, self.num_tasks, self.classes_per_task, self.first_task_classes, self.remainder)
        order = class_order(num_classes, self.class_order, seed if self.seed is None else self.seed)
        return [order[stop - size : stop] for stop, size in zip(accumulate(sizes), sizes, strict=True)]
