"""Groups of classes that share their labels: each is a domain, in which a label means another class."""

from __future__ import annotations

from typing import Any

from lightning_cl.datamodules.sampling import permutation
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.derived import DerivedSource
from lightning_cl.datamodules.sources.items import replace_label


class OverwrittenLabels(DerivedSource):
    """The classes of a source in groups of ``ways``, each of which uses the labels ``0 .. ways - 1`` anew.

    With the scenario :class:`SupportSets` it is continual few-shot learning whose labels are overwritten when the
    classes change (CFSL, arXiv:2209.07863): a model of ``ways`` outputs has to answer for all of them. Groups are
    domains; classes that fill no group are left out.

    Args:
        source: Any source without domains of its own, with one label a sample.
        ways: Classes of a group, at least 1.
        seed: Decides which classes are together.

    Raises:
        ValueError: If ``ways`` is below 1; in :meth:`setup`, if the source has domains, or fewer classes.
    """

    def __init__(self, source: Source, ways: int = 5, seed: int = 0) -> None:
        if ways < 1:
            raise ValueError(f"`ways` is {ways}; give at least 1.")
        self.source, self.ways, self.seed = source, ways, seed

    def _open(self) -> None:
        source = self._opened_for_copies()
        source.check_single_label("OverwrittenLabels")
        classes = len(source.class_names)
        if classes < self.ways:
            raise ValueError(f"`ways` is {self.ways}, but the source has {classes} classes; give at most as many.")
        place = permutation(classes, self.seed, 0).argsort()  # of each class among all groups
        groups = classes // self.ways
        places = {"train": place[source.train_labels], "test": place[source.test_labels]}
        self.index = {split: (own < groups * self.ways).nonzero().flatten() for split, own in places.items()}
        train, test = (own[self.index[split]] for split, own in places.items())
        labels = tuple(f"class {label} of its group" for label in range(self.ways))
        names = tuple(f"group {group}" for group in range(groups))
        of_train, of_test = train // self.ways, test // self.ways
        self._describe(train % self.ways, test % self.ways, labels, of_train, of_test, names)

    def item(self, split: Split, index: int) -> Any:
        """The source's item with its label in its group."""
        made = self.train_labels if split == "train" else self.test_labels
        given = self.source.item(split, int(self.index[split][index]))
        return replace_label(given, lambda _: int(made[index]))
