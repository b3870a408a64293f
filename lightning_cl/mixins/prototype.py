"""A classifier of class means in a frozen module: the training step only counts, the head only compares."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.nn.prototypes import PrototypeBank
from lightning_cl.training.feature_classifier import FeatureClassifier


class ClassMeans(FeatureClassifier):
    """Counts each task's samples once, and answers with comparisons to the means; nothing is trained."""

    former_keys: ClassVar[dict[str, str]] = {"prototypes.": "bank."}
    known_as: ClassVar[dict[str, str]] = {"prototypes": "bank"}


class PrototypeMixin(ContinualMixin):
    """Classifies by class means of the head's input: ``class MyModel(PrototypeMixin, LightningModule)``.

    In ``setup``, :meth:`configure_continual` comes first, then :meth:`add_prototypes`.
    """

    def add_prototypes(self, bank: PrototypeBank, cache_features: bool = True) -> None:
        """Freeze the module and let the means answer; see :class:`ClassMeans`."""
        self.add_method("prototypeclassifier", ClassMeans(self, bank, cache_features))

    def train(self, mode: bool = True) -> Any:
        """Everything stays in eval mode while nothing is trained: features must not depend on dropout."""
        parts = self.continual.parts.values() if hasattr(self, "continual") else ()
        frozen = any(isinstance(part, FeatureClassifier) and not part.trains_now() for part in parts)
        return super().train(mode and not frozen)
