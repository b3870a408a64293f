"""Continual few-shot learning: small support sets one after another, whose classes change every few sets (CFSL)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import permutation
from lightning_cl.datamodules.scenarios.base import Scenario, by_new_class
from lightning_cl.datamodules.scenarios.orders import OrderRule, class_order, with_ids
from lightning_cl.datamodules.sources.base import Source


class SupportSets(Scenario):
    """Continual few-shot learning (CFSL; Kowadlo et al., arXiv:2209.07863), wide (many classes) or deep (many sets).

    A task is one of ``sets`` support sets of ``ways`` classes with ``shots`` images each. The classes change after
    every ``change_every`` sets, and no image comes in two of them; the evaluation is over the test images of all
    classes that came. A source with domains, such as :class:`OverwrittenLabels`, changes its domain instead, of which
    all classes come. An episode is a seed: run several for a mean with its interval
    (:func:`~lightning_cl.metrics.functional.episode_interval`).

    Args:
        sets: Number of support sets.
        ways: Classes of each; those of a domain, where the source has domains.
        shots: Images of each class in a set.
        change_every: Sets after which the classes change, at least 1; ``sets``: they never do.
        class_order: As in :class:`ClassIncremental`; of the domains, where the source has some, the natural order.
        seed: Seed of order and images; ``None``: the stream's.

    Raises:
        ValueError: If a number is below 1; from :meth:`train_tasks`, if classes, domains or images do not suffice.
    """

    def __init__(
        self,
        sets: int = 10,
        ways: int = 5,
        shots: int = 1,
        change_every: int = 1,
        class_order: OrderRule | str | os.PathLike[str] | Sequence[int | str] = "shuffled",
        seed: int | None = None,
    ) -> None:
        for name, value in (("sets", sets), ("ways", ways), ("shots", shots), ("change_every", change_every)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")
        self.sets, self.ways, self.shots, self.change_every = sets, ways, shots, change_every
        self.class_order, self.seed = class_order, seed
        self.remarks = (f"support sets of {ways} classes with {shots} images each, whose images the seed decides",)

    def for_source(self, source: Source) -> Scenario:
        """With the source's ids for names and files."""
        return with_ids(self, "class_order", source.class_names)

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each support set's images, class by class."""
        seed, needed = seed if self.seed is None else self.seed, min(self.change_every, self.sets) * self.shots
        tasks: list[list[Tensor]] = [[] for _ in range(self.sets)]
        for number, group in enumerate(self._groups(labels, domains, num_classes, seed)):
            for members in group:
                if len(members) < needed:
                    raise ValueError(
                        f"a class has {len(members)} images, but its sets take {needed}, {self.shots} each; lower "
                        "`shots` or `change_every`."
                    )
                drawn = members[permutation(len(members), seed, int(members[0]))].split(self.shots)
                first = number * self.change_every
                for task, images in zip(tasks[first : first + self.change_every], drawn, strict=False):
                    task.append(images)
        return [torch.cat(task) for task in tasks]

    def _groups(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[list[Tensor]]:
        """For each change, positions of the images of its classes."""
        changes, known = -(-self.sets // self.change_every), 0 if domains is None else int(domains.max()) + 1
        if domains is not None and changes <= known:
            held = [labels[domains == domain].unique().tolist() for domain in range(changes)]
            if any(len(classes) != self.ways for classes in held):
                raise ValueError(
                    f"`ways` is {self.ways}, but the domains have {', '.join(str(len(h)) for h in held)} classes; give "
                    "as many as every domain has."
                )
            pairs = enumerate(held)
            return [[((labels == c) & (domains == d)).nonzero().flatten() for c in classes] for d, classes in pairs]
        if domains is not None or changes * self.ways > num_classes:
            needed = f"{changes * self.ways} classes" if domains is None else f"{changes} domains"
            raise ValueError(
                f"{self.sets} sets that change after every {self.change_every} need {needed}, but there are "
                f"{num_classes if domains is None else known}; use fewer sets, or change the classes less often."
            )
        order = class_order(num_classes, self.class_order, seed)
        groups = torch.tensor(order)[: changes * self.ways].split(self.ways)
        return [[(labels == c).nonzero().flatten() for c in group.tolist()] for group in groups]

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions of each task's evaluation samples: of the classes, or the domain, that it brings."""
        if domains is None:
            return by_new_class(labels, classes_per_task)
        first = range(0, self.sets, self.change_every)
        none = torch.empty(0, dtype=torch.long)
        brought = {task: (domains == number).nonzero().flatten() for number, task in enumerate(first)}
        return [brought.get(task, none) for task in range(self.sets)]
