"""A language model that is held to a reference: the divergence of what both answer for every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cl.callbacks.distillation.teacher import PreviousModel
from lightning_cl.nn.losses import divergence
from lightning_cl.training import Step
from lightning_cl.training.teacher import weights_and_statistics
from lightning_cl.training.token_logits import TokenCalls, counted_tokens, find_token_head


class TokenTeacher(PreviousModel):
    """Teaches its answers for every token.

    Args:
        module: The LightningModule.
        strength: Of the term.
        temperature: Above 0.
        reverse: See :func:`~lightning_cl.nn.divergence`.
        from_start: The reference is the model before the first task, not the one before the present task.
        head: Dotted path of the layer that makes the logits; found when ``None``.
    """

    def __init__(
        self, module: Any, strength: float, temperature: float, reverse: bool, from_start: bool, head: str | None
    ) -> None:
        super().__init__(module, strength)
        self.temperature, self.reverse, self.from_start = temperature, reverse, from_start
        self.calls = TokenCalls(module, find_token_head(module, head))

    def start_task(self, module: Any, task: Any) -> None:
        """The model as it comes may be the reference of all tasks."""
        if self.from_start and not self.weights.taken:
            self.weights.take(weights_and_statistics(module))

    def end_task(self, module: Any, data: Any) -> None:
        """The present model may be the reference of the next task."""
        if not self.from_start:
            super().end_task(module, data)

    def start_step(self, step: Step) -> None:
        """Listen to the user's step, where there will be a term."""
        if self.weights.taken and self.strength:
            self.calls.start()

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength * T^2 KL``, mean over the tokens that count, of all processes."""
        if not self.weights.taken or not self.strength:
            return {}
        student = self.calls.logits
        if student is None or student.ndim < 3:
            shape = "was not called" if student is None else f"answered with {tuple(student.shape)}"
            raise ValueError(
                f"LwF compares the logits of every token, but `{self.calls.head}` {shape} in `training_step`; name the "
                'layer that answers with (B, L, words) with `head="..."`.'
            )
        teacher = self.calls.again(step.module, dict(self.weights.items()))
        self.calls.stop()
        counted = counted_tokens(step.batch, student.shape[:-1], step.module.continual.batch_keys)
        if counted is None:
            counted = torch.ones(student.shape[:-1], dtype=torch.bool, device=student.device)
        values = self.temperature**2 * divergence(student, teacher, self.temperature, self.reverse)
        return {"lwf": self.strength * step.mean_over(counted, values)}
