"""The base of all prompt methods: builds the prompts and lets the module's transformer ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from inspect import signature
from typing import Any, ClassVar, TypeVar

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.prompt import PromptedBackbone
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.attention import attention_families
from lightning_cl.nn.prompts import PromptProvider
from lightning_cl.training.find_backbone import find_attention

ProviderT = TypeVar("ProviderT", bound=PromptProvider)


@dataclass(eq=False)
class PromptMethod(ContinualMethod):
    """A method that trains prompts and head of a frozen transformer; members build the provider.

    Args:
        backbone: Dotted path of the network (see :mod:`lightning_cl.nn.attention`); found when ``None``.
        cache_queries: Compute the query of an evaluation image once per run. Needs evaluation transforms without
            randomness, which is what the sources have.
        cache_training_queries: Compute the query of a training image once a task, in a pass before its first step.
            Needs training images that are the same in every epoch (a source with ``augment="none"``); keeps a query for
            each image of the task, in no checkpoint. Does nothing in a stream without boundaries.
    """

    adapts_backbone: ClassVar[bool] = True
    #: Its prompts are tokens in every form, so a network must have a sequence that they can join.
    needs_tokens: ClassVar[bool] = False

    _: KW_ONLY
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True
    backbone: str | None = None
    cache_queries: bool = True
    cache_training_queries: bool = False

    @property
    def needs_forward(self) -> bool:  # type: ignore[override]
        """Not where queries are made in the user's own steps."""
        return self.cache_training_queries

    @classmethod
    def backbones(cls) -> str:
        """The families of :mod:`lightning_cl.nn.attention`, and those that a user registered."""
        families = (f for f in attention_families() if f.takes_tokens or not cls.needs_tokens)
        return ", ".join(sorted(family.name for family in families))

    def provider(self, info: StreamInfo, width: int, num_outputs: int) -> PromptProvider:
        """The method's prompts for a ViT of ``width`` channels and a head of ``num_outputs`` classes."""
        raise NotImplementedError

    def filled(self, pool: Callable[..., ProviderT], **arguments: Any) -> ProviderT:
        """A pool with these arguments, and with this method's own for all others of its arguments."""
        shared = {field.name for field in fields(self)} & signature(pool).parameters.keys()
        return pool(**{**{name: getattr(self, name) for name in shared}, **arguments})

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
        find_attention(pl_module, self.backbone)  # a module without one stays as it is
        super().attach(pl_module, info)

    def build(self, pl_module: Any, info: Any) -> PromptedBackbone:
        """The prompts in the module's transformer."""
        provider = self.provider(info, *self.sizes(pl_module))
        return PromptedBackbone(pl_module, provider, self.backbone, self.cache_queries, self.cache_training_queries)

    def sizes(self, pl_module: Any) -> tuple[int, int]:
        """Width of the network and outputs of the head, for :meth:`provider`."""
        _, network, family = find_attention(pl_module, self.backbone)
        return family.width(network), pl_module.continual_head.out_features


def checked_layers(layers: Sequence[int]) -> tuple[int, ...]:
    """Layer indices as a tuple.

    Raises:
        ValueError: If there is none, or one is named twice.
    """
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"`layers` is {list(layers)}; name at least one layer, each once.")
    return tuple(int(layer) for layer in layers)
