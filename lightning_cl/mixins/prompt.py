"""Prompts in a frozen ViT: what a training step does differently for every prompt method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_cl.mixins.announcing import announce
from lightning_cl.mixins.base import ContinualMixin, expect_eval_mode
from lightning_cl.mixins.extending import extend
from lightning_cl.mixins.finding import find_vit
from lightning_cl.mixins.prompt_use import PromptUse
from lightning_cl.nn.prompted_vit import PromptedViT, check_vit, install_prompts
from lightning_cl.nn.prompts import PromptProvider

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task


class PromptMixin(ContinualMixin):
    """Prompts for the one timm ViT of a module; ``configure_continual`` comes first, then :meth:`add_prompts`.

    A callback does both. A model author can do without one::

        class MyModel(PromptMixin, LightningModule):
            def setup(self, stage):
                if not hasattr(self, "prompts"):  # called for every fit and test
                    info = self.trainer.datamodule.info
                    self.configure_continual(info, train_mask="task", reset_optimizer=True)
                    self.add_prompts(CODAPromptPool(info.num_tasks, width=self.net.embed_dim))
    """

    prompts: PromptProvider

    def add_prompts(self, provider: PromptProvider, backbone: str | None = None, cache_queries: bool = True) -> None:
        """Freeze the ViT (all but a head inside it) and let it ask ``provider``.

        Args:
            provider: Registered as the submodule ``prompts``, so optimised, saved and reduced with the module.
            backbone: Dotted path of the timm ``VisionTransformer``; found when ``None``.
            cache_queries: Compute the query of an evaluation image once per run. Needs evaluation transforms without
                randomness.

        Raises:
            ValueError: If there is no (single) ViT, it has prompts already, or the provider does not fit it.
        """
        _, vit = find_vit(self, backbone)
        if isinstance(vit, PromptedViT) or hasattr(self, "prompts"):
            raise ValueError(
                "the module has prompts already (or an attribute `prompts`); use one prompt method at a time."
            )
        check_vit(vit, provider)
        extend(vit, PromptedViT)
        install_prompts(vit, provider)
        reference = next(vit.parameters())
        self.prompts = provider.to(device=reference.device, dtype=reference.dtype)
        self.__dict__["_prompted_vit"] = vit
        self.__dict__["_cache_queries"] = cache_queries and provider.needs_query
        self.__dict__["_prompt_use"] = PromptUse(provider)
        expect_eval_mode()

    @property
    def prompted_vit(self) -> Any:
        """The frozen ViT with prompts."""
        return self.__dict__["_prompted_vit"]

    def on_task_start(self, task: Task) -> None:
        """Let the provider prepare the task, the same on all ranks, before slices are protected."""
        self.prompts.start_task(task.index)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for tensor in self.prompts.parameters():
                torch.distributed.broadcast(tensor.data, 0)
        super().on_task_start(task)

    def protected_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The head's rows and the provider's."""
        yield from super().protected_rows()
        yield from self.prompts.protected_rows()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As before; terms of passes outside of a step (in training mode, as replay draws features) are dropped."""
        self.prompts.pending_losses.clear()
        use: PromptUse = self.__dict__["_prompt_use"]
        use.begin_step()
        output = super().training_step(*args, **kwargs)
        if not self.automatic_optimization:  # its backward passes are over
            use.require(self)
        return output

    def on_after_backward(self) -> None:
        """Find out in the first step whether the prompts learn."""
        super().on_after_backward()
        use: PromptUse = self.__dict__["_prompt_use"]
        stream = getattr(self.trainer, "datamodule", None)
        if not use.known and getattr(stream, "task_index", 0) == 0:  # later a method may warm up the head alone
            use.note()
            if self.automatic_optimization:
                use.require(self)

    def collect_losses(self) -> None:
        """The provider's terms, averaged over the forward passes of the step."""
        super().collect_losses()
        losses = self.prompts.pending_losses
        if losses:
            self.add_loss("prompt_loss", torch.stack(losses).mean())
            losses.clear()

    # ------------------------------------------------------------------ queries of evaluation images

    def expect_images(self, batch_idx: int, stage: str) -> None:
        """Tell the cache of queries which images come next."""
        super().expect_images(batch_idx, stage)
        if self.__dict__["_cache_queries"]:
            announce(getattr(self.trainer, "datamodule", None), self.prompted_vit.prompt_state()[1], batch_idx, stage)

    def forget_images(self) -> None:
        """The next pass is over images that nobody announced."""
        self.prompted_vit.prompt_state()[1].forget_expectation()
        super().forget_images()
