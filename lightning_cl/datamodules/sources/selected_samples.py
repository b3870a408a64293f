"""The training samples of a source that are worth their cost: chosen by skill, spread of scores and distinctness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.derived import DerivedSource
from lightning_cl.nn.data_selection import select_samples, shared_budget


class SelectedSamples(DerivedSource):
    """Some of a source's training samples, chosen as Adapt-infinity does (Maharana et al., arXiv:2410.10636).

    The domains of the source, the tasks of ``DomainIncremental``, share the budget evenly, and in each
    :func:`~lightning_cl.nn.select_samples` chooses: features are clustered into pseudo-skills, and each skill is
    sampled over the values of the score that spreads most within it. Without domains it chooses from all. Test
    samples, classes and transforms are the source's. Features and scores are those of one model before the stream: the
    paper takes them anew before each task and then drops near-duplicates of the pool (``lightning_cl.nn.distinct``).

    Args:
        source: Any source with one label a sample, or none.
        features: ``(N, D)`` of the training samples in the source's order: what reaches the head, or gradients.
        scores: Some ``(N,)``, by name: losses, perplexities, errors, distances to a prototype.
        budget: Training samples to keep over all domains, at least 1 of each.
        skills: Clusters of a domain, at least 1.
        seed: The same seed, the same samples.

    Raises:
        ValueError: In :meth:`setup`, if there is not one feature and score for each training sample, the budget is out
            of its range, or a class is left without one.
    """

    def __init__(
        self, source: Source, features: Any, scores: Mapping[str, Any], budget: int, skills: int = 10, seed: int = 0
    ) -> None:
        self.source, self.budget, self.skills, self.seed = source, budget, skills, seed
        self.features = torch.as_tensor(features)
        self.scores = {name: torch.as_tensor(values) for name, values in scores.items()}

    def _open(self) -> None:
        source = self._opened()
        source.check_single_label("SelectedSamples")
        self.levels, self.superclass_names = source.levels, source.superclass_names
        if len(self.features) != len(source.train_labels):
            raise ValueError(
                f"there are {len(self.features)} features, but {len(source.train_labels)} training samples; give one "
                "for each, in the source's order."
            )
        #: Positions of the training samples that are kept, ascending.
        self.index = self._chosen()
        labels, domains = source.train_labels[self.index], source.train_domains
        lost = sorted(set(source.train_labels.tolist()) - set(labels.tolist()))
        if lost:
            raise ValueError(
                f"the budget of {self.budget} leaves the class {source.class_names[lost[0]]!r} without a training "
                "sample; raise it, or give more skills."
            )
        of_kept = None if domains is None else domains[self.index]
        self._describe(
            labels, source.test_labels, source.class_names, of_kept, source.test_domains, source.domain_names
        )

    def _chosen(self) -> Tensor:
        domains = self.source.train_domains
        kinds = torch.zeros(len(self.features), dtype=torch.long) if domains is None else domains
        groups = [(kinds == kind).nonzero().flatten() for kind in kinds.unique().tolist()]
        chosen = []
        for group, number in zip(groups, shared_budget([len(group) for group in groups], self.budget), strict=True):
            scores = {name: values[group] for name, values in self.scores.items()}
            chosen.append(group[select_samples(self.features[group], scores, number, self.skills, self.seed)])
        return torch.cat(chosen).sort().values

    def item(self, split: Split, index: int) -> Any:
        """The source's."""
        return self.source.item(split, int(self.index[index]) if split == "train" else index)

    def file_names(self, split: Split) -> Sequence[str] | None:
        """The source's, of the samples that are kept."""
        names = self.source.file_names(split)
        return names if names is None or split == "test" else [names[i] for i in self.index.tolist()]
