"""The images of a source once for each task, with the classes renamed at random each time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed, permutation
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.derived import DerivedSource
from lightning_cl.datamodules.sources.items import replace_label


class PermutedLabels(DerivedSource):
    """All images of a source in every domain, whose labels are those of the source under a fresh random permutation.

    With the scenario ``DomainIncremental`` it is the stream on which a loss of plasticity is measured: each task is as
    hard as the first, nothing of one helps the next, so a falling accuracy on new tasks says that the network learns
    worse than it did. The labels contradict each other from task to task, so of the metrics only ``learning_accuracy``
    has a meaning. Domain 0 has the source's own labels.

    Args:
        source: Any source without domains of its own, with one label a sample.
        num_domains: At least 1.
        seed: Of the permutations.

    Raises:
        ValueError: If ``num_domains`` is below 1; in :meth:`setup`, if the source has domains.
    """

    def __init__(self, source: Source, num_domains: int, seed: int = 0) -> None:
        if num_domains < 1:
            raise ValueError(f"`num_domains` is {num_domains}; give at least 1.")
        self.source, self.num_domains, self.seed = source, num_domains, seed

    def _open(self) -> None:
        source = self._opened_for_copies()
        self.permutations = label_permutations(len(source.class_names), self.num_domains, self.seed)
        train, test = (self.permutations[:, own].flatten() for own in (source.train_labels, source.test_labels))
        domains = torch.arange(self.num_domains)
        of_train, of_test = (domains.repeat_interleave(len(own)) for own in (source.train_labels, source.test_labels))
        names = tuple(f"permutation {domain}" for domain in range(self.num_domains))
        self._describe(train, test, source.class_names, of_train, of_test, names)

    def item(self, split: Split, index: int) -> Any:
        """The source's item with the label that it has in its domain."""
        training = split == "train"
        own, made = (s.train_labels if training else s.test_labels for s in (self.source, self))
        return replace_label(self.source.item(split, index % len(own)), lambda _: int(made[index]))


def label_permutations(num_classes: int, count: int, seed: int) -> Tensor:
    """``(count, C)`` int64: the new label of each class; the first row leaves all as they are."""
    drawn = [permutation(num_classes, mix_seed(seed, 0x9E1), number) for number in range(1, count)]
    return torch.stack([torch.arange(num_classes), *drawn])
