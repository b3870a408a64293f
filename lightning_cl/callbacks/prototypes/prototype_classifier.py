"""NMC and SimpleCIL: class means of a frozen backbone's features, with no gradient at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer

from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.mixins.prototype import PrototypeMixin
from lightning_cl.nn.prototypes import Distance, PrototypeBank

if TYPE_CHECKING:
    from lightning_cl.datamodules import StreamInfo


class PrototypeClassifier(ContinualMethod):
    """Nearest class mean on frozen features: the baseline that every other method must beat.

    The default is NMC (Janson et al., arXiv:2210.04428): unit-length features, Euclidean distance to their means.
    ``PrototypeClassifier(distance="cosine", normalize=False)`` is SimpleCIL (Zhou et al., arXiv:2303.07338).

    A feature is what reaches the head. Every image passes the backbone once over the whole stream, for training (in a
    task's first epoch) and for evaluation (remembered by position, and computed anew where a step passes on another
    image than the stream's), so a run is linear in the number of tasks. Task boundaries play no part.

    Args:
        distance: ``"euclidean"`` or ``"cosine"``.
        normalize: Scale features to unit length before they are averaged and compared.
        augment: Average augmented training images; by default they get the evaluation transform.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        cache_features: Remember the features of evaluation images. Needs evaluation transforms without randomness.
    """

    state_key = "lightning_cl.PrototypeClassifier"
    trains_head = trains = False
    replaces_head = True

    def __init__(
        self,
        distance: Distance = "euclidean",
        normalize: bool = True,
        augment: bool = False,
        head: str | None = None,
        cache_features: bool = True,
    ) -> None:
        super().__init__(head=head, train_mask="all", reset_optimizer=False)
        self.distance, self.normalize, self.augment, self.cache_features = distance, normalize, augment, cache_features

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach, and ask the stream for training images with the evaluation transform."""
        super().setup(trainer, pl_module, stage)
        if not self.augment:
            require_stream(trainer, type(self).__name__).train_view = "eval"

    def attach(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """Freeze the module and replace what its head answers."""
        self.extend(pl_module, PrototypeMixin, info)
        assert isinstance(pl_module, PrototypeMixin)
        width = pl_module.continual_head.in_features
        bank = PrototypeBank(info.num_classes, width, self.distance, self.normalize)
        pl_module.add_prototypes(bank, self.cache_features)
