"""Blurry streams: disjoint classes stay in one task, a share of the others' samples is dealt out again.

The functions behind :class:`SiBlurry` (arXiv:2308.09303) and :class:`IBlurry` (arXiv:2110.10031). With
``blur_select="dataset_order"`` and ``keep_all_classes=False`` they draw what the published sampler draws, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.base import check_every_class
from lightning_cl.datamodules.scenarios.class_incremental import even_sizes
from lightning_cl.datamodules.scenarios.orders import class_order as checked_order

Mode = Literal["varying", "fixed"]
BlurSelect = Literal["random", "dataset_order"]
#: For each task the class ids that it owns.
Owned = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class BlurrySetting:
    """What decides a blurry stream, besides labels and seed; see :class:`SiBlurry`.

    Raises:
        ValueError: If a number is out of range or a choice is unknown.
    """

    num_tasks: int = 5
    disjoint_class_pct: int = 50
    blurry_sample_pct: int = 10
    blur_select: BlurSelect = "random"
    keep_all_classes: bool = True
    class_order: Sequence[int] | None = None
    mode: Mode = "varying"

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise ValueError(f"`num_tasks` is {self.num_tasks}; give at least 1.")
        for name in ("disjoint_class_pct", "blurry_sample_pct"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or int(value) not in range(101):
                raise ValueError(f"`{name}` is {value!r}; give a whole percentage, 0 to 100 (50 for one half).")
        if self.blur_select not in ("random", "dataset_order"):
            raise ValueError(f"`blur_select` is {self.blur_select!r}; expected 'random' or 'dataset_order'.")
        if self.mode not in ("varying", "fixed"):
            raise ValueError(f"`mode` is {self.mode!r}; expected 'varying' or 'fixed'.")


@dataclass(frozen=True)
class BlurryReport:
    """What a blurry stream is made of, and what it leaves out.

    Attributes:
        disjoint_classes: For each task the classes whose samples all arrive in it.
        blurry_classes: For each task the classes whose samples arrive in it, except those that were dealt out again.
        quotas: For each task how many samples it gives to the pool, if it has so many.
        pool_size: Number of samples that were dealt out again.
        moved_share: Share of the blurry samples that arrive outside of the task that owns their class, in [0, 1].
        filled_tasks: Tasks that would have been empty, and were given a class of the task with the most.
        dropped_classes: Classes that are not in the stream.
        dropped_samples: Number of their samples.
        lost_samples: Number of samples of the pool that no task got.
    """

    disjoint_classes: Owned
    blurry_classes: Owned
    quotas: tuple[int, ...]
    pool_size: int
    moved_share: float
    filled_tasks: tuple[int, ...]
    dropped_classes: tuple[int, ...]
    dropped_samples: int
    lost_samples: int


@dataclass(frozen=True)
class _Deal:
    tasks: list[Tensor]
    quotas: tuple[int, ...]
    pool_size: int
    lost_samples: int


def blurry_stream(
    labels: Tensor, num_classes: int, setting: BlurrySetting, seed: int
) -> tuple[list[Tensor], BlurryReport]:
    """Positions of each task's samples in order of arrival, and a report.

    One generator feeds all draws, in the order of the published sampler: class order, cuts between the tasks' disjoint
    and blurry classes, cuts between the tasks' shares of the pool, the pool, and each task's order of arrival.

    Args:
        labels: ``(N,)`` int64 in ``0 .. num_classes - 1``.
        num_classes: Number of classes.
        setting: See :class:`SiBlurry`.
        seed: Of all draws.

    Raises:
        ValueError: If there are more tasks than classes, a class has no sample, or ``blur_select="dataset_order"``
            leaves a task without a sample.
    """
    if setting.num_tasks > num_classes:
        raise ValueError(
            f"`num_tasks` is {setting.num_tasks} but there are {num_classes} classes; use at most {num_classes}."
        )
    check_every_class(labels, num_classes)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(num_classes, generator=generator).tolist()  # drawn anyway: the cuts are the seed's
    if setting.class_order is not None:
        order = checked_order(num_classes, setting.class_order)
    disjoint_pool, blurry_pool, dropped = class_pools(order, setting)
    disjoint = _owned(disjoint_pool, setting, generator)
    blurry = _owned(blurry_pool, setting, generator)
    disjoint, blurry, deal, filled = _deal_to_all(labels, disjoint, blurry, setting, generator, seed)
    report = BlurryReport(
        disjoint_classes=disjoint,
        blurry_classes=blurry,
        quotas=deal.quotas,
        pool_size=deal.pool_size,
        moved_share=_moved_share(labels, num_classes, blurry, deal.tasks),
        filled_tasks=filled,
        dropped_classes=tuple(sorted(dropped)),
        dropped_samples=int(torch.isin(labels, torch.tensor(dropped, dtype=torch.int64)).sum()),
        lost_samples=deal.lost_samples,
    )
    return deal.tasks, report


def class_pools(order: Sequence[int], setting: BlurrySetting) -> tuple[list[int], list[int], list[int]]:
    """Disjoint, blurry and dropped classes; the first two in multiples of the number of tasks, if any are dropped.

    With ``keep_all_classes`` the rest is blurry, or disjoint where all classes shall be.
    """
    tasks = setting.num_tasks
    disjoint = len(order) * setting.disjoint_class_pct // 100 // tasks * tasks
    blurry = (len(order) - disjoint) // tasks * tasks
    rest = list(order[disjoint + blurry :])
    pools = list(order[:disjoint]), list(order[disjoint : disjoint + blurry])
    if not setting.keep_all_classes:
        return *pools, rest
    pools[setting.disjoint_class_pct < 100].extend(rest)
    return *pools, []


def random_sizes(count: int, parts: int, generator: torch.Generator) -> list[int]:
    """``count`` items cut at random into ``parts`` sizes of at least 0; the last is at least 1 if ``count`` is."""
    if count == 0:
        return [0] * parts
    cuts = torch.randint(0, count, (parts - 1,), generator=generator).sort().values.tolist()
    return [stop - start for start, stop in zip([0, *cuts], [*cuts, count], strict=True)]


def fill_task(disjoint: Owned, blurry: Owned, empty: int) -> tuple[Owned, Owned]:
    """Give the last class of the task with the most classes to an empty one; it stays disjoint or blurry."""
    counts = [len(d) + len(b) for d, b in zip(disjoint, blurry, strict=True)]
    donor = counts.index(max(counts))
    owned = [list(disjoint), list(blurry)]
    kind = owned[len(blurry[donor]) > len(disjoint[donor])]
    kind[empty] = (*kind[empty], kind[donor][-1])
    kind[donor] = kind[donor][:-1]
    return tuple(owned[0]), tuple(owned[1])


def _owned(pool: Sequence[int], setting: BlurrySetting, generator: torch.Generator) -> Owned:
    if setting.mode == "varying":
        sizes = random_sizes(len(pool), setting.num_tasks, generator)
    else:
        sizes = even_sizes(len(pool), setting.num_tasks, "first") or []
    return tuple(tuple(pool[stop - size : stop]) for stop, size in zip(accumulate(sizes), sizes, strict=True))


def _members(labels: Tensor, owned: Owned) -> list[Tensor]:
    """Positions of the samples of each task's classes, ascending."""
    return [torch.isin(labels, torch.tensor(held, dtype=torch.int64)).nonzero().flatten() for held in owned]


def _deal(labels: Tensor, disjoint: Owned, blurry: Owned, setting: BlurrySetting, generator: torch.Generator) -> _Deal:
    """Take samples of the blurry classes into one pool, deal it out, and mix each task."""
    fixed, published = setting.mode == "fixed", setting.blur_select == "dataset_order"
    kept, own = _members(labels, disjoint), _members(labels, blurry)
    counts, pct = [len(members) for members in own], setting.blurry_sample_pct
    quotas = [n * pct // 100 for n in counts] if fixed else random_sizes(sum(counts) * pct // 100, len(own), generator)
    taken = [min(quota, n) for quota, n in zip(quotas, counts, strict=True)]
    if not published:
        own = [members[torch.randperm(len(members), generator=generator)] for members in own]
        if not fixed:  # a task with nothing else keeps a sample of its own: the others may not leave it one
            taken = [n - (n == count > 0 == len(d)) for n, count, d in zip(taken, counts, kept, strict=True)]
    pool = torch.cat([members[:n] for members, n in zip(own, taken, strict=True)])
    pool = pool[torch.randperm(len(pool), generator=generator)]
    if fixed:
        given = [len(pool) // len(own)] * len(own) if published else even_sizes(len(pool), len(own), "first") or []
    else:
        given = quotas
    tasks = []
    for d, members, n, size, stop in zip(kept, own, taken, given, accumulate(given), strict=True):
        task = torch.cat([d, members[n:], pool[stop - size : stop]])
        tasks.append(task[torch.randperm(len(task), generator=generator)])
    return _Deal(tasks, tuple(quotas), len(pool), max(len(pool) - sum(given), 0))


def _deal_to_all(
    labels: Tensor, disjoint: Owned, blurry: Owned, setting: BlurrySetting, generator: torch.Generator, seed: int
) -> tuple[Owned, Owned, _Deal, tuple[int, ...]]:
    """Deal; while a task comes out empty, give it a class and deal again from the same state of the generator."""
    state, filled = generator.get_state(), list[int]()
    while True:
        generator.set_state(state)
        deal = _deal(labels, disjoint, blurry, setting, generator)
        empty = [task for task, members in enumerate(deal.tasks) if len(members) == 0]
        if not empty:
            return disjoint, blurry, deal, tuple(filled)
        if setting.blur_select == "dataset_order":
            raise ValueError(
                f"the seed {seed} leaves the task(s) {empty} of {setting.num_tasks} without a sample, as the published "
                'sampler may; use another `seed`, fewer tasks or more classes, or `blur_select="random"`, which fills '
                "them."
            )
        assert len(filled) < setting.num_tasks, "a task that owns a class keeps a sample, so each is filled once"
        disjoint, blurry = fill_task(disjoint, blurry, empty[0])
        filled.append(empty[0])


def _moved_share(labels: Tensor, num_classes: int, blurry: Owned, tasks: Sequence[Tensor]) -> float:
    owner = torch.full((num_classes,), -1)
    for task, held in enumerate(blurry):
        owner[list(held)] = task
    owners = [owner[labels[members]] for members in tasks]
    moved = sum(int(((found >= 0) & (found != task)).sum()) for task, found in enumerate(owners))
    return moved / max(int((owner[labels] >= 0).sum()), 1)


def losses(name: str, setting: BlurrySetting, report: BlurryReport) -> str | None:
    """What the stream leaves out or does differently, in words; ``None``: nothing."""
    found = []
    if report.dropped_classes:
        found.append(
            f"leaves out the classes {list(report.dropped_classes)} ({report.dropped_samples} samples), because "
            f"{setting.num_tasks} tasks do not divide the classes; `keep_all_classes=True` keeps them"
        )
    if report.lost_samples:
        found.append(
            f"loses {report.lost_samples} of {report.pool_size} samples that it dealt out again, because "
            f'{setting.num_tasks} tasks do not divide them; `blur_select="random"` deals out all'
        )
    if setting.disjoint_class_pct and not any(report.disjoint_classes):
        found.append(
            f"has no disjoint class: `disjoint_class_pct={setting.disjoint_class_pct}` is less than one for each of "
            f"{setting.num_tasks} tasks; raise it, or use fewer tasks"
        )
    return f"{name} {'; it '.join(found)}." if found else None
