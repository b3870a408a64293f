"""A training step with methods: their loss terms, their edits of gradients, and steps that are not the user's."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from lightning_cl.mixins.head import HeadMixin
from lightning_cl.mixins.inheritance import own_hook
from lightning_cl.training.loss_terms import check_term, plus, times, zero_through
from lightning_cl.training.step import Step


class StepMixin(HeadMixin):
    """What a training step and a step of an evaluation do with methods."""

    def add_loss(self, name: str, value: Tensor) -> None:
        """Add a scalar to the loss of the current training step; it is logged as ``name``."""
        self.continual.loss_terms[name] = value

    def collect_losses(self) -> None:
        """Called after the user's step; mixins call :meth:`add_loss` here for terms that arose in the forward pass."""
        step = self.continual.step
        if step is not None:
            for part in self.continual.ordered_parts:
                for name, value in part.losses(step).items():
                    check_term(name, value, self.device)
                    self.add_loss(name, value)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The user's step, with the methods' loss terms added to what it returns; alone within an evaluation."""
        if not torch.is_grad_enabled():  # called by the user's `validation_step`
            return own_hook(self, super(), "training_step")(*args, **kwargs)
        state = self.continual
        state.loss_terms.clear()
        if state.memory is not None:
            state.memory.left_out = True  # until the user's step is made
        step = Step(self, args[0] if args else next(iter(kwargs.values()), None))
        step.users_step = partial(self._users_step, step, *args, **kwargs)
        state.step, state.calls = step, step.calls
        try:
            output = self._replaced_step(step)
            if output is not None or step.made:
                state.loss_terms.clear()
                return output
            output = step.users_step()
        finally:
            state.step = state.calls = state.answer = state.tokens = None
            state.outputs = {}
        terms = dict(state.loss_terms)
        state.loss_terms.clear()
        if not terms or output is None:
            return output
        state.last_terms = {name: value.detach() for name, value in terms.items()}
        self.log_dict(state.last_terms)
        return plus(output, torch.stack(list(terms.values())).sum())

    def _users_step(self, step: Step, *args: Any, **kwargs: Any) -> Any:
        """What the user's step returns; the methods' terms are collected beside it, unless it leaves the batch out."""
        step.made = True
        for part in self.continual.ordered_parts:
            part.start_step(step)
        output = own_hook(self, super(), "training_step")(*args, **kwargs)
        if output is None and self.automatic_optimization:
            return None
        if self.continual.memory is not None:
            self.continual.memory.left_out = False
        factor = prod(part.loss_factor for part in self.continual.ordered_parts)
        output = output if factor == 1 else times(output, factor)
        self.collect_losses()
        return output

    def _replaced_step(self, step: Step) -> Any:
        """What a step returns that a method makes in place of the user's, or ``None``."""
        parts = self.continual.ordered_parts
        for part in parts:
            output = part.own_step(step)
            if output is not None or step.made:
                return output
        if all(part.trains_now() for part in parts):
            return None
        return zero_through((p for p in self.parameters() if p.requires_grad), self.device)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Let the methods change the gradients."""
        for part in self.continual.ordered_parts:
            part.edit_gradients(self, optimizer)
        own_hook(self, super(), "on_before_optimizer_step")(optimizer)

    # ------------------------------------------------------------------ evaluation images

    def start_evaluation(self) -> None:
        """Let the methods prepare an evaluation in the middle of a task."""
        for part in self.continual.ordered_parts:
            part.start_evaluation(self)

    def expect_images(self, batch_idx: int, stage: str) -> None:
        """The next pass is over ``stream.eval_batch(batch_idx, stage)``; mixins with caches tell them."""
        stream = getattr(self.trainer, "datamodule", None)
        if stream is not None and getattr(stream, "task_identity", False):
            self.continual.choice.told = stream.eval_task(batch_idx, stage)
        for part in self.continual.ordered_parts:
            part.expect_samples(self, batch_idx, stage)

    def forget_images(self) -> None:
        """Expect no images of the stream in the next pass."""
        self.continual.choice.told = None
        for part in self.continual.ordered_parts:
            part.forget_samples(self)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Announce the batch's images."""
        super().on_validation_batch_start(batch, batch_idx, dataloader_idx)
        self.expect_images(batch_idx, "val")

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Announce the batch's images."""
        super().on_test_batch_start(batch, batch_idx, dataloader_idx)
        self.expect_images(batch_idx, "test")

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Forget the announcement."""
        self.forget_images()
        super().on_validation_batch_end(outputs, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Forget the announcement."""
        self.forget_images()
        super().on_test_batch_end(outputs, batch, batch_idx, dataloader_idx)
