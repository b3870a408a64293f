"""A source whose images are labelled at one level of a label tree each, or at all of them."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.derived import DerivedSource
from lightning_cl.datamodules.sources.extended import relabelled
from lightning_cl.datamodules.superclasses import level_of_each

Labelling = Literal["single", "dual"]


def deal_levels(labels: Tensor, levels: int, seed: int) -> Tensor:
    """``(N,)`` one level for each sample, at random; each class has equal shares of all levels (up to one sample)."""
    rng = np.random.RandomState(mix_seed(seed, levels) % 2**32)  # its numbers never change
    dealt = torch.empty_like(labels)
    for c in labels.unique():
        members = (labels == c).nonzero().flatten()
        order = torch.from_numpy(rng.permutation(len(members)))
        dealt[members[order]] = torch.arange(len(members)) % levels
    return dealt


class LabelLevels(DerivedSource):
    """The images of a source with labels of all levels of its label tree, for hierarchical label expansion.

    Superclasses and classes are the classes here, numbered level by level from the coarsest on; each sample is an image
    with the label of one level. In the test split every image comes once at every level.

    Args:
        source: With superclasses, as ``ArraySource(..., superclass_of_class=...)`` or ``CIFAR100`` have them.
        labelling: ``"single"``: a training image has the label of one level only, at random in equal shares;
            ``"dual"``: it comes at every level, so the same image comes back with its finer label.
        seed: Decides which level an image is labelled at; it does not depend on the seed of the stream.

    Raises:
        ValueError: If ``labelling`` is unknown; in :meth:`setup`, if the source has no superclasses, or a class has no
            image at its own level.
    """

    def __init__(self, source: Source, labelling: Labelling = "single", seed: int = 0) -> None:
        if labelling not in ("single", "dual"):
            raise ValueError(f"`labelling` is {labelling!r}; give 'single' or 'dual'.")
        self.source, self.labelling, self.seed = source, labelling, seed

    def _open(self) -> None:
        source = self._opened()
        if not source.superclass_names:
            raise ValueError(
                f"{type(source).__name__} has no superclasses, so there are no levels of labels; give it "
                "`superclass_of_class=`, or use `ArraySource` or `CIFAR100`."
            )
        self.levels = self._tree(source)
        count = len(source.levels)
        first = self.first_of_level
        #: ``(L, C)`` for each level and class of the source the class here.
        self.class_ids = torch.tensor(source.levels) + torch.tensor(first)[:, None]
        places = {split: self._places(labels, count, split) for split, labels in self._labels(source)}
        #: For each split the image in the source, and the level, of each sample.
        self.places = places
        train, test = (
            self.class_ids[places[split][1], labels[places[split][0]]] for split, labels in self._labels(source)
        )
        self._describe(train, test, self._names(source))

    @staticmethod
    def _labels(source: Source) -> list[tuple[Split, Tensor]]:
        return [("train", source.train_labels), ("test", source.test_labels)]

    def _places(self, labels: Tensor, levels: int, split: Split) -> tuple[Tensor, Tensor]:
        images = torch.arange(len(labels))
        if split == "test" or self.labelling == "dual":
            return images.repeat(levels), torch.arange(levels).repeat_interleave(len(labels))
        return images, deal_levels(labels, levels, self.seed)

    @property
    def first_of_level(self) -> list[int]:
        """The first class of each level."""
        return [0, *accumulate(len(names) for names in self.source.superclass_names)]

    def _tree(self, source: Source) -> tuple[tuple[int, ...], ...]:
        """For each level the ancestor of each class here; -1 below its own level."""
        first, own = self.first_of_level, source.levels
        table = torch.full((len(own), first[-1] + len(own[-1])), -1)
        for level, of_class in enumerate(own):
            for above in range(level + 1):
                table[above, torch.tensor(of_class) + first[level]] = torch.tensor(own[above]) + first[above]
        return tuple(tuple(row) for row in table.tolist())

    def _names(self, source: Source) -> list[str]:
        """Of all classes here; one that is there twice has its level behind it."""
        names = [name for level in (*source.superclass_names, source.class_names) for name in level]
        of_class = level_of_each(self.levels)
        return [
            f"{name} (level {level})" if names.count(name) > 1 else name
            for name, level in zip(names, of_class, strict=True)
        ]

    def item(self, split: Split, index: int) -> Any:
        """The source's item, with the label that it has here."""
        image, level = (int(places[index]) for places in self.places[split])
        return relabelled(self.source.item(split, image), self.class_ids[level])
