"""Gradients of remembered samples of earlier tasks, which A-GEM and GEM compare a step's gradient with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_cl.nn.gradients import flat, write_flat
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, Step


class MemoryGradients(MethodModule):
    """Remembers with every sample in which task it came; subclasses project the step's gradient."""

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """No term; the samples of this step belong to this task."""
        rows = len(step.targets)
        step.module.keep(task=torch.full((rows,), step.task.index, device=step.targets.device))
        return {}

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Project what this optimiser is about to use."""
        moved = {n: p for n, p in trained(module, optimizer).items() if p.grad is not None}
        past = self._past(module)
        if moved and bool(past.any()):
            gradients = [p.grad for p in moved.values() if p.grad is not None]
            projected = self.projected(module, flat(gradients), list(moved.values()), past)
            write_flat(projected, gradients)

    def projected(self, module: Any, gradient: Tensor, weights: list[Tensor], past: Tensor) -> Tensor:
        """The ``(D,)`` gradient of ``weights`` after projection.

        Args:
            module: The LightningModule.
            gradient: ``(D,)``.
            weights: Whose gradient it is, in order.
            past: ``(capacity,)`` bool: slots with a sample of an earlier task, at least one.
        """
        raise NotImplementedError

    def _past(self, module: Any) -> Tensor:
        """Slots of earlier tasks; of all samples in a stream that does not tell where a task ends."""
        buffer, task = module.continual.memory.buffer, module.trainer.datamodule.task
        used: Tensor = buffer.labels >= 0
        return used if task.order == "stream" or not bool(used.any()) else used & (self.tasks(module) < task.index)

    @staticmethod
    def tasks(module: Any) -> Tensor:
        """``(capacity,)`` in which task each slot's sample came."""
        known: Tensor = module.continual.memory.extras["task"]
        return known.to(module.continual.memory.buffer.labels.device)
