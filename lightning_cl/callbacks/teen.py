"""TEEN as a drop-in callback: the training-free baseline of few-shot class-incremental learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.teen import TEENMixin
from lightning_cl.nn.teen import TEENBank

if TYPE_CHECKING:
    from lightning_cl.datamodules import StreamInfo


class TEEN(ContinualMethod):
    """TEEN, training-free prototype calibration (Wang et al., NeurIPS 2023, arXiv:2312.05229).

    The base session (the first task) is ordinary training with cosine logits. Then all weights stay as they are: base
    classes answer with their means, and the mean of each few-shot class is shifted towards the base classes that it
    resembles. ``alpha=0`` is the plain cosine classifier of class means. Means are taken on evaluation transforms, at
    the end of each task, so one epoch for each later task is enough: ``epochs_per_task=[100, 1, 1, ...]``.

    Args:
        alpha: Share of the base classes in a new row, in [0, 1]: 0.1 for CIFAR-100, 0.5 for CUB-200 and miniImageNet.
        temperature: Sharpness of the similarity to base classes, above 0.
        scale: Of the cosine logits, above 0: 16 for CIFAR-100, 32 for CUB-200 and miniImageNet.
        train_base: Train in the base session; ``False`` takes the module's features as they are.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss of the base session.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key = "lightning_cl.TEEN"
    replaces_head = True

    def __init__(
        self,
        alpha: float = 0.5,
        temperature: float = 16.0,
        scale: float = 16.0,
        train_base: bool = True,
        head: str | None = None,
        train_mask: TrainMask = "seen",
    ) -> None:
        super().__init__(head=head, train_mask=train_mask, reset_optimizer=False)
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` is {alpha}, the share of the base classes; give a number in [0, 1].")
        for name, value in (("temperature", temperature), ("scale", scale)):
            if value <= 0:
                raise ValueError(f"`{name}` is {value}; give a number above 0.")
        self.alpha, self.temperature, self.scale, self.train_base = alpha, temperature, scale, train_base

    def attach(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """Make the head a cosine head and add the bank of means."""
        self.extend(pl_module, TEENMixin, info)
        assert isinstance(pl_module, TEENMixin)
        width = pl_module.continual_head.in_features
        bank = TEENBank(info.num_classes, width, self.alpha, self.temperature, self.scale)
        pl_module.add_teen(bank, self.train_base)
