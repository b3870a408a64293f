"""Prompts in a frozen transformer: what a training step does differently for every prompt method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.mixins.base import ContinualMixin, expect_eval_mode
from lightning_cl.nn.attention import check_prompts, put_in_prompts
from lightning_cl.nn.prompts import PromptProvider
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.evaluated_batch import announce
from lightning_cl.training.find_backbone import find_attention
from lightning_cl.training.prompt_use import PromptUse
from lightning_cl.training.training_queries import TrainingQueries


class PromptedBackbone(MethodModule):
    """Freezes the one transformer of a module (all but a head inside it) and lets it ask a provider for prompts.

    Args:
        module: The LightningModule.
        provider: The prompts; moved to the ViT's device and dtype.
        backbone: Dotted path of the network, of a family in :mod:`lightning_cl.nn.attention`; found when ``None``.
        cache_queries: Compute the query of an evaluation image once per run. Needs evaluation transforms without
            randomness.
        cache_training_queries: Compute the query of a training image once a task, too. Needs training images that are
            the same in every epoch; does nothing in a stream without boundaries.

    Raises:
        ValueError: If there is no (single) network of a known family, the module has prompts already, or the provider
            does not fit it.
    """

    former_keys: ClassVar[dict[str, str]] = {"prompts.": "provider."}
    known_as: ClassVar[dict[str, str]] = {"prompts": "provider"}

    provider: PromptProvider

    def __init__(
        self,
        module: Any,
        provider: PromptProvider,
        backbone: str | None = None,
        cache_queries: bool = True,
        cache_training_queries: bool = False,
    ) -> None:
        super().__init__()
        _, vit, family = find_attention(module, backbone)
        if any(isinstance(part, PromptedBackbone) for part in module.continual.parts.values()):
            raise ValueError("the module has prompts already; use one prompt method at a time.")
        check_prompts(vit, provider, family)
        put_in_prompts(vit, provider, family, module.continual_head)
        reference = next(vit.parameters())
        self.provider = provider.to(device=reference.device, dtype=reference.dtype)
        self.__dict__["_vit"] = vit  # a part of the user's module
        self.cache_queries = cache_queries and provider.needs_query
        cached = cache_training_queries and provider.needs_query
        self._training_queries = TrainingQueries(provider, vit.prompt_state()[1]) if cached else None
        self._use: PromptUse | None = PromptUse(vit, provider)  # until it is known
        expect_eval_mode()

    @property
    def vit(self) -> Any:
        """The frozen network with prompts."""
        return self.__dict__["_vit"]

    # ------------------------------------------------------------------ a training step

    def start_step(self, step: Step) -> None:
        """Drop terms of passes outside of a step (in training mode, as replay draws features)."""
        self.provider.pending_losses.clear()
        if self._use is not None:
            self._use.begin_step()
        if self._training_queries is not None:
            self._training_queries.announce(step.module)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The provider's terms, averaged over the forward passes of the step."""
        if self.provider.training_queries is not None:
            self.provider.training_queries.forget_expectation()
        if self._use is not None and not step.module.automatic_optimization:  # its backward passes are over
            self._use.require(step.module)
        terms = list(self.provider.pending_losses)
        self.provider.pending_losses.clear()
        if not any(term.requires_grad for term in terms):  # passes without gradient train nothing
            return {}
        return {"prompt_loss": torch.stack(terms).mean()}

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Find out in the first step whether the prompts learn."""
        if self._use is None:
            return
        task = getattr(getattr(module.trainer, "datamodule", None), "task_index", 0)
        if task != 0:  # later a method may warm up the head alone
            return
        self._use.note(module)
        if module.automatic_optimization:
            self._use.require(module)
        if self._use.known:
            self._use = None

    # ------------------------------------------------------------------ tasks

    def start_task(self, module: Any, task: Any) -> None:
        """Let the provider prepare the task, before slices are protected."""
        self.provider.start_task(task.index)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The provider's rows of other tasks."""
        yield from self.provider.protected_rows()

    # ------------------------------------------------------------------ queries of evaluation images

    def expect_samples(self, module: Any, batch_idx: int, stage: str) -> None:
        """Announce the next images to the cache of queries."""
        if self.cache_queries:
            announce(getattr(module.trainer, "datamodule", None), self.vit.prompt_state()[1], batch_idx, stage)

    def forget_samples(self, module: Any) -> None:
        """Expect no images of the stream in the next pass."""
        self.vit.prompt_state()[1].forget_expectation()


class PromptMixin(ContinualMixin):
    """Prompts for the one transformer of a module; ``configure_continual`` comes first, then :meth:`add_prompts`.

    A callback does both. A model author can do without one::

        class MyModel(PromptMixin, LightningModule):
            def setup(self, stage):
                if not hasattr(self, "prompts"):  # called for every fit and test
                    info = self.trainer.datamodule.info
                    self.configure_continual(info, train_mask="task", reset_optimizer=True)
                    self.add_prompts(CODAPromptPool(info.num_tasks, width=self.net.embed_dim))

    What MVP and virtual outliers do to a step comes with a callback's own module, and needs no mixin::

        method = VirtualOutlierRegularizer(outlier_epochs=1)
        self.add_method("outliers", method.build(self, info))
    """

    prompts: PromptProvider

    def add_prompts(self, provider: PromptProvider, backbone: str | None = None, cache_queries: bool = True) -> None:
        """Carry a :class:`PromptedBackbone` with these arguments, whose provider is ``self.prompts``."""
        self.add_method("prompts", PromptedBackbone(self, provider, backbone, cache_queries))
