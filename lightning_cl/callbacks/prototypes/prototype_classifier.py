"""NMC and SimpleCIL: class means of a frozen backbone's features, with no gradient at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.prototypes.feature_method import FeatureMethod
from lightning_cl.mixins.prototype import ClassMeans
from lightning_cl.nn.prototypes import Distance, PrototypeBank
from lightning_cl.training.first_task import FirstTask


@dataclass(eq=False)
class PrototypeClassifier(FeatureMethod):
    """Nearest class mean on frozen features: the baseline that every other method must beat.

    The default is NMC (Janson et al., arXiv:2210.04428): unit-length features, Euclidean distance to their means.
    ``PrototypeClassifier(distance="cosine", normalize=False)`` is SimpleCIL (Zhou et al., arXiv:2303.07338).

    A feature is what reaches the head. Every image passes the backbone once over the whole stream, for training (in a
    task's first epoch) and for evaluation (remembered by position, and computed anew where a step passes on another
    image than the stream's), so a run is linear in the number of tasks. Task boundaries play no part. The user's step
    trains nothing; where a callback or a schedule monitors something (``ModelCheckpoint(monitor="train_loss")``), it is
    made without gradient in a task's first epoch, for what it logs.

    Args:
        distance: ``"euclidean"`` or ``"cosine"``.
        normalize: Scale features to unit length before they are averaged and compared.
        augment: Average augmented training images; by default they get the evaluation transform.
        cache_features: Remember the features of evaluation images. Needs evaluation transforms without randomness.
        train_mask: Of no effect.
        reset_optimizer: Of no effect.

    Raises:
        ValueError: For an unknown distance, when attached.
    """

    state_key: ClassVar[str] = "lightning_cl.PrototypeClassifier"
    advice: ClassVar[str] = "use a backbone with fewer channels"

    distance: Distance = "euclidean"
    normalize: bool = True
    augment: bool = False
    cache_features: bool = True

    def bank(self, num_classes: int, width: int) -> PrototypeBank:
        """Means of the classes."""
        return PrototypeBank(num_classes, width, self.distance, self.normalize)

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """The sums and the means."""
        return 2 * 8 * num_classes * width

    def classifier(self, pl_module: Any, bank: Any, first: FirstTask | None) -> ClassMeans:
        """With the names that its state had from the start."""
        return ClassMeans(pl_module, bank, self.cache_features)
