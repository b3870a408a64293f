"""The instance test: support sets of images, each a class of its own, and the same images degraded to recognise."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.instances import Instances


class InstanceTest(Scenario):
    """Support sets one after another, and a target set of all their images (CFSL, arXiv:2209.07863).

    A task is one of ``sets`` support sets, with as many images of each class of the source :class:`Instances`; the
    average accuracy after the last task is the share of all degraded images that were recognised as themselves. An
    episode is a seed of the source: run several for a mean with its interval
    (:func:`~lightning_cl.metrics.functional.episode_interval`).

    Args:
        sets: Number of support sets; ``count`` of the source must be a multiple of it.

    Raises:
        ValueError: If ``sets`` is below 1; from :meth:`for_source`, for another source, or if its images cannot be
            shared out.
    """

    remarks = ("instance test: each class is one image, so accuracy is the share of images recognised when degraded",)

    def __init__(self, sets: int = 10) -> None:
        if sets < 1:
            raise ValueError(f"`sets` is {sets}; give at least 1.")
        self.sets = sets

    def for_source(self, source: Source) -> Scenario:
        """Itself, where the source's classes are single images."""
        if not isinstance(source, Instances):
            raise ValueError(
                f"the instance test needs a source whose classes are single images, but this is a "
                f"{type(source).__name__}; give `Instances({type(source).__name__}(...))`."
            )
        if source.count % self.sets:
            raise ValueError(
                f"`sets` is {self.sets}, but there are {source.count} images of each class; give a divisor of it."
            )
        return self

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each support set's images, in their natural order."""
        return list(torch.arange(len(labels)).tensor_split(self.sets))
