"""Some classes of a source, so that hyperparameters are chosen on other classes than they are evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.derived import DerivedSource
from lightning_cl.datamodules.sources.extended import ExtendedSource, relabelled
from lightning_cl.datamodules.superclasses import Superclasses, of_some, with_own_level

Part = Literal["tuning", "evaluation"]


def tuning_classes(num_classes: int, fraction: float, seed: int) -> list[int]:
    """Classes that are split off for tuning, in ascending order; the same on every machine.

    Raises:
        ValueError: If either part would be empty.
    """
    count = round(num_classes * fraction)
    if not 0 < count < num_classes:
        raise ValueError(
            f"`tuning_fraction` is {fraction}, which is {count} of {num_classes} classes; both parts need at least one."
        )
    # RandomState, not default_rng: NumPy promises that its numbers never change.
    chosen: list[int] = np.random.RandomState(seed % 2**32).permutation(num_classes)[:count].tolist()
    return sorted(chosen)


class ClassSubset(DerivedSource):
    """One of two class-disjoint parts of a source: one to choose hyperparameters on, one to evaluate on (2403.09066).

    The classes are renumbered from 0 in the order they have in the source; images, transforms and domains are the
    source's. The stream's hash shows which classes there are.

    Args:
        source: Any source.
        part: ``"tuning"`` or ``"evaluation"``.
        tuning_fraction: Share of the classes that is split off for tuning.
        seed: Decides which classes these are.
        classes: Ids of the wanted classes instead, in ascending order after which they are renumbered.

    Raises:
        ValueError: For an unknown ``part``; in :meth:`setup`, if a part or a list of classes is empty, or a class is
            unknown or listed twice.
    """

    def __init__(
        self,
        source: Source,
        part: Part = "tuning",
        tuning_fraction: float = 0.5,
        seed: int = 0,
        classes: Sequence[int] | None = None,
    ) -> None:
        if part not in ("tuning", "evaluation"):
            raise ValueError(f'`part` is {part!r}; give "tuning" or "evaluation".')
        if isinstance(source, ExtendedSource):
            raise ValueError("an extended source has no parts of classes; extend a stream by a `ClassSubset` instead.")
        self.source, self.part, self.tuning_fraction, self.seed, self.classes = (
            source,
            part,
            tuning_fraction,
            seed,
            classes,
        )

    def _open(self) -> None:
        source = self._opened()
        source.check_single_label("ClassSubset")
        kept = self._kept(source.num_classes)
        #: For each class of the source its number here; -1: it is left out.
        self.class_ids = torch.full((source.num_classes,), -1)
        self.class_ids[kept] = torch.arange(len(kept))
        labels = {"train": source.train_labels, "test": source.test_labels}
        #: For each split the positions in the source.
        self.index = {split: (self.class_ids[own] >= 0).nonzero().flatten() for split, own in labels.items()}
        train, test = (self.class_ids[labels[split][self.index[split]]] for split in ("train", "test"))
        names = [source.class_names[c] for c in kept]
        if source.superclass_names:
            superclasses = of_some(Superclasses(source.levels[:-1], source.superclass_names), kept)
            self.levels, self.superclass_names = with_own_level(superclasses.ancestors), superclasses.names
        domains = (self._domains(source.train_domains, "train"), self._domains(source.test_domains, "test"))
        self._describe(train, test, names, *domains, source.domain_names)

    def _kept(self, num_classes: int) -> list[int]:
        if self.classes is None:
            tuning = tuning_classes(num_classes, self.tuning_fraction, self.seed)
            return tuning if self.part == "tuning" else sorted(set(range(num_classes)) - set(tuning))
        kept = sorted(self.classes)
        if not kept or len(set(kept)) < len(kept) or not 0 <= kept[0] <= kept[-1] < num_classes:
            raise ValueError(f"`classes` is {list(self.classes)}; give some of 0..{num_classes - 1}, each once.")
        return kept

    def _domains(self, domains: Tensor | None, split: Split) -> Tensor | None:
        return None if domains is None else domains[self.index[split]]

    def item(self, split: Split, index: int) -> Any:
        """The source's item, with the number that its class has here."""
        return relabelled(self.source.item(split, int(self.index[split][index])), self.class_ids)

    def rows(self, split: Split, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """The source's."""
        found = self.source.rows(split, self.index[split][places])
        return None if found is None else (found[0], self.class_ids[found[1]])

    def file_names(self, split: Split) -> Sequence[str] | None:
        """The source's, of the images that are kept."""
        names = self.source.file_names(split)
        return None if names is None else [names[i] for i in self.index[split].tolist()]
