"""The base of methods that classify features of a frozen network in closed form."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.callbacks.boundaries import check_boundaries
from lightning_cl.callbacks.head_kinds import check_own_rows
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.mixins.prototype import PrototypeMixin
from lightning_cl.nn.adapters import tune_frozen_vit
from lightning_cl.training.device_memory import check_fits
from lightning_cl.training.feature_classifier import FeatureClassifier
from lightning_cl.training.find_backbone import find_vit
from lightning_cl.training.first_task import FirstTask, FirstTaskAdapters


class FeatureMethod(ContinualMethod):
    """Makes a head of running statistics; a subclass gives the head, and says what it needs."""

    mixin: ClassVar[type[ContinualMixin]] = PrototypeMixin
    trains_head: ClassVar[bool] = False
    replaces_head: ClassVar[bool] = True
    #: How to need less memory.
    advice: ClassVar[str]

    augment: bool
    cache_features: bool

    @property
    def trains(self) -> bool:  # type: ignore[override]
        """Whether something learns by gradient descent, in the first task."""
        return self._first_task != "none"

    @property
    def _first_task(self) -> str:
        return getattr(self, "first_task", "none")

    @property
    def at_task_end(self) -> bool:
        """Whether samples are counted when a task ends."""
        return self.trains

    def bank(self, num_classes: int, width: int) -> nn.Module:
        """The head, for features of ``width`` channels; see :class:`~lightning_cl.training.FeatureClassifier`."""
        raise NotImplementedError

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """Of the head, at most at a time."""
        raise NotImplementedError

    def check_stream(self, stream: Any) -> None:
        """Refuse a stream that the method cannot take."""
        if self.at_task_end:
            does = "stops learning" if self.trains else "chooses the ridge"
            check_boundaries(stream, type(self).__name__, does, "arguments that need no boundaries, or GACIL")

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check the stream and the device, attach, and ask for training images with the evaluation transform."""
        stream = require_stream(trainer, type(self).__name__)
        self.check_stream(stream)
        super().setup(trainer, pl_module, stage)
        self._check_fits(pl_module, trainer.strategy.root_device)
        if not self.at_task_end and not self.augment:
            stream.train_view = "eval"

    def build(self, pl_module: Any, info: Any) -> FeatureClassifier:
        """The head that answers; without a first task that learns, the module is frozen."""
        head = pl_module.continual_head
        self._check_fits(pl_module, head.weight.device)
        return self.classifier(pl_module, self.bank(info.num_classes, head.in_features), self._first(pl_module))

    def classifier(self, pl_module: Any, bank: Any, first: FirstTask | None) -> FeatureClassifier:
        """What counts and answers with the head."""
        return FeatureClassifier(pl_module, bank, self.cache_features, first, self.at_task_end)

    def _first(self, pl_module: Any) -> FirstTask | None:
        """What learns in the first task: all, or what tunes a frozen ViT."""
        tuning: Any = self._first_task
        if tuning in ("none", "all"):
            return FirstTask() if tuning == "all" else None
        own: Any = self
        _, vit = find_vit(pl_module, own.backbone)
        check_own_rows(pl_module, type(self).__name__)
        return FirstTaskAdapters(tune_frozen_vit(vit, tuning, own.rank, own.scale, own.dropout))

    def _check_fits(self, pl_module: Any, device: torch.device) -> None:
        num_classes, width = pl_module.continual.info.num_classes, pl_module.continual_head.in_features
        what = f"the matrices of {type(self).__name__}"
        check_fits(self.bytes_needed(num_classes, width), device, what, self.advice)


@dataclass(eq=False)
class CountingMethod(FeatureMethod):
    """Base of those that count each training image once.

    Args:
        augment: Count augmented training images; by default they get the evaluation transform.
        cache_features: Remember the features of evaluation images. Needs evaluation transforms without randomness.
        train_mask: Of no effect.
        reset_optimizer: Of no effect.
    """

    _: KW_ONLY
    augment: bool = False
    cache_features: bool = True
