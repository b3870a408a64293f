"""Class-incremental learning: every task brings classes that no other task holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario, by_new_class, check_every_class
from lightning_cl.datamodules.scenarios.orders import OrderRule, class_order

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
    classes_per_task: Sequence[int] | None = None,
    first_task_classes: int | None = None,
    remainder: Remainder = "error",
) -> list[int]:
    """Number of classes in each task, each at least 1, which add up to ``num_classes``.

    Raises:
        ValueError: If the arguments do not divide the classes among the tasks; see :class:`ClassIncremental`.
    """
    if classes_per_task is not None:
        sizes = list(classes_per_task)
        if sum(sizes) != num_classes:
            raise ValueError(
                f"`classes_per_task` {sizes} adds up to {sum(sizes)} but there are {num_classes} classes; "
                "every class must be in one task."
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


def class_incremental(labels: Tensor, order: Sequence[int], sizes: Sequence[int]) -> list[Tensor]:
    """Positions of each task's samples, sorted ascending; task ``t`` holds the next ``sizes[t]`` classes of ``order``.

    Args:
        labels: ``(N,)`` int64 in ``0 .. len(order) - 1``.
        order: All class ids in order of arrival.
        sizes: Number of classes in each task; adds up to ``len(order)``.
    """
    stops = list(accumulate(sizes))
    return by_new_class(labels, [order[stop - size : stop] for stop, size in zip(stops, sizes, strict=True)])


class ClassIncremental(Scenario):
    """Every task brings new classes, and no class comes back.

    Task-incremental learning is the same stream, evaluated with the task known.

    Args:
        num_tasks: Number of tasks of equal size; left out if ``classes_per_task`` is given.
        classes_per_task: Number of classes in each task, for example ``[50, 10, 10, 10, 10, 10]``.
        first_task_classes: Number of classes in the first task; the others share the rest equally.
        class_order: ``"shuffled"``: from the seed (1993 gives the order of iCaRL, PyCIL and PILOT); ``"natural"``: by
            id; ``"coda_prompt"``: the order of the CODA-Prompt and OVOR code for trial ``seed``; or a list of all ids.
        seed: Seed of the class order; ``None``: the stream's.
        remainder: Who gets the classes that are left where ``num_tasks`` does not divide them: the ``"first"`` or the
            ``"last"`` tasks, one each (10 classes in 3 tasks: 4, 3, 3 or 3, 3, 4); ``"error"``: nobody.

    Raises:
        ValueError: If not exactly one of ``num_tasks`` and ``classes_per_task`` is given or a number is below 1; and
            from :meth:`train_tasks` if the classes cannot be divided so.
    """

    def __init__(
        self,
        num_tasks: int | None = None,
        classes_per_task: Sequence[int] | None = None,
        first_task_classes: int | None = None,
        class_order: OrderRule | Sequence[int] = "shuffled",
        seed: int | None = None,
        remainder: Remainder = "error",
    ) -> None:
        if (num_tasks is None) == (classes_per_task is None):
            raise ValueError(
                f"`num_tasks` is {num_tasks} and `classes_per_task` is {classes_per_task}; give exactly one of them."
            )
        if classes_per_task is not None and first_task_classes is not None:
            raise ValueError("`classes_per_task` already says how large the first task is; drop `first_task_classes`.")
        for name, value in (("num_tasks", num_tasks), ("first_task_classes", first_task_classes)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")
        if classes_per_task is not None and (not classes_per_task or min(classes_per_task) < 1):
            raise ValueError(f"`classes_per_task` is {list(classes_per_task)}; every task needs at least 1 class.")
        if remainder not in ("error", "first", "last"):
            raise ValueError(f"`remainder` is {remainder!r}; expected 'error', 'first' or 'last'.")
        self.num_tasks, self.classes_per_task = num_tasks, classes_per_task
        self.first_task_classes, self.remainder = first_task_classes, remainder
        self.class_order, self.seed = class_order, seed

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples, sorted ascending: disjoint, and together all of them."""
        sizes = task_sizes(num_classes, self.num_tasks, self.classes_per_task, self.first_task_classes, self.remainder)
        order = class_order(num_classes, self.class_order, seed if self.seed is None else self.seed)
        check_every_class(labels, num_classes)
        return class_incremental(labels, order, sizes)
