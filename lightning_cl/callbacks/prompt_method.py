"""The base of all prompt methods: builds a provider and attaches it to the module's ViT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.datamodules.binding import callbacks_of
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.finding import find_vit
from lightning_cl.mixins.prompt import PromptMixin
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.prompts import PromptProvider

if TYPE_CHECKING:
    from lightning_cl.datamodules import StreamInfo


class PromptMethod(ContinualMethod):
    """A method that trains prompts and head of a frozen timm ViT; members build the provider.

    Args:
        backbone: Dotted path of the timm ``VisionTransformer``; found when ``None``.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.
        cache_queries: Compute the query of an evaluation image once per run. Needs evaluation transforms without
            randomness, which is what the sources have.
    """

    def __init__(
        self,
        backbone: str | None = None,
        head: str | None = None,
        train_mask: TrainMask = "task",
        reset_optimizer: bool = True,
        cache_queries: bool = True,
    ) -> None:
        super().__init__(head=head, train_mask=train_mask, reset_optimizer=reset_optimizer)
        self.backbone, self.cache_queries = backbone, cache_queries

    def provider(self, info: StreamInfo, width: int, depth: int) -> PromptProvider:
        """The method's prompts for a ViT of ``depth`` blocks of ``width`` channels."""
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach, once, and not beside a method that lets nothing be trained."""
        idle = [type(c).__name__ for c in callbacks_of(trainer) if isinstance(c, ContinualMethod) and not c.trains]
        if idle:
            raise ValueError(
                f"{type(self).__name__} trains prompts, but {' and '.join(idle)} makes the answers without gradient "
                "descent, so they would stay as they were made; leave out one of the two."
            )
        super().setup(trainer, pl_module, stage)

    def attach(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """Add the prompts; see :class:`ContinualMethod`."""
        _, vit = find_vit(pl_module, self.backbone)
        provider = self.provider(info, vit.embed_dim, len(vit.blocks))
        self.extend(pl_module, PromptMixin, info)
        assert isinstance(pl_module, PromptMixin)
        pl_module.add_prompts(provider, self.backbone, self.cache_queries)


def checked_layers(layers: Sequence[int]) -> tuple[int, ...]:
    """Layer indices as a tuple.

    Raises:
        ValueError: If there is none, or one is named twice.
    """
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"`layers` is {list(layers)}; name at least one layer, each once.")
    return tuple(int(layer) for layer in layers)
