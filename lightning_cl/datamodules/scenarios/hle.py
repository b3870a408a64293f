"""Hierarchical label expansion: labels are coarse at first, and finer ones come later."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.argument_kinds import as_count
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.scenarios.base import Scenario, by_new_class
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.superclasses import level_of_each


class HLE(Scenario):
    """Coarse labels first, finer ones later, in one pass: hierarchical label expansion (HLE, arXiv:2308.14374).

    The first task brings all classes of the coarsest level; each finer level follows in ``tasks_per_level`` tasks that
    share out its classes at random. The source is :class:`LabelLevels`, which says whether an image comes at one level
    only or again with its finer label. A sample is evaluated among the classes of its own level: the level is told, as
    the paper's one head per level has it. Where images come at several levels, hold out no training data
    (``val_split``): an image would be held out at one level and trained on at another.

    Args:
        tasks_per_level: Tasks of each level but the first, at least 1.
        seed: Seed of the order of classes and samples; ``None``: the stream's.

    Raises:
        ValueError: If ``tasks_per_level`` is below 1; from :meth:`for_source`, if the labels are all of one level; from
            :meth:`train_tasks`, if a level has fewer classes than tasks.
    """

    order = "stream"

    def __init__(self, tasks_per_level: int = 1, seed: int | None = None) -> None:
        self.tasks_per_level = as_count("tasks_per_level", tasks_per_level)
        if self.tasks_per_level < 1:
            raise ValueError(f"`tasks_per_level` is {tasks_per_level}; give at least 1.")
        self.seed = seed
        self.class_levels: tuple[int, ...] = ()

    def for_source(self, source: Source) -> Scenario:
        """The scenario for the levels of this source's classes."""
        levels = level_of_each(source.levels)
        if len(set(levels)) < 2:
            raise ValueError(
                f"HLE deals out labels of several levels, but those of {type(source).__name__} are all of one; use "
                "`LabelLevels(source)`, of a source with superclasses."
            )
        made = copy(self)
        made.class_levels = levels
        return made

    def held_classes(self, seed: int) -> list[list[int]]:
        """The classes that each task brings."""
        rng = np.random.RandomState(mix_seed(seed if self.seed is None else self.seed, 0) % 2**32)
        tasks: list[list[int]] = []
        for level in sorted(set(self.class_levels)):
            classes = rng.permutation([c for c, own in enumerate(self.class_levels) if own == level])
            count = self.tasks_per_level if level else 1
            if count > len(classes):
                raise ValueError(
                    f"`tasks_per_level` is {count}, but level {level} has {len(classes)} classes; use at most "
                    f"{len(classes)}."
                )
            tasks += [sorted(part.tolist()) for part in np.array_split(classes, count)]
        return tasks

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples in order of arrival."""
        tasks: Sequence[Tensor] = by_new_class(labels, self.held_classes(seed))
        rng = np.random.RandomState(mix_seed(seed if self.seed is None else self.seed, 1) % 2**32)
        return [members[torch.from_numpy(rng.permutation(len(members)))] for members in tasks]
