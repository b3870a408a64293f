"""GEM: no step goes against the gradient of any earlier task's remembered samples."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.gradients.references import MemoryGradients
from lightning_cl.callbacks.replay.experience_replay import OwnBatchReplay, ReplayPolicy
from lightning_cl.nn.gradients import project_on_references
from lightning_cl.training.memory_steps import memory_gradient


class EveryTasksGradient(MemoryGradients):
    """A reference for each earlier task: all of its remembered samples."""

    def __init__(self, margin: float, ridge: float) -> None:
        super().__init__()
        self.margin, self.ridge = margin, ridge

    def projected(self, module: Any, gradient: Tensor, weights: list[Tensor], past: Tensor) -> Tensor:
        """The solution of the quadratic program."""
        whole = module.trainer.datamodule.task.order == "stream"
        tasks = torch.zeros_like(past, dtype=torch.long) if whole else self.tasks(module)
        groups = [((tasks == task) & past).nonzero().flatten() for task in tasks[past].unique().tolist()]
        size = module.continual.memory.batch_size
        references = gradient.new_empty(len(groups), len(gradient))  # filled row by row: they exist once
        for row, slots in zip(references, groups, strict=True):
            row.copy_(memory_gradient(module, slots, weights, size))
        return project_on_references(gradient, references, self.margin, self.ridge)


@dataclass(eq=False)
class GEM(OwnBatchReplay):
    """Gradient episodic memory (GEM; Lopez-Paz & Ranzato, NeurIPS 2017, arXiv:1706.08840).

    ``G`` has a row for each earlier task, the gradient of the cross-entropy on all of its remembered samples. If
    ``G g`` has a negative entry, the step's gradient becomes ``g + G^T v`` with ``v = argmin v (G G^T + ridge) v / 2 +
    v G g, v >= margin``; else it stays bit for bit. Remembered samples are not trained on. Works on any module with a
    class head; needs a memory and task boundaries (without them all of the memory is one task). A step makes one more
    forward and backward pass over the samples of earlier tasks in the memory.

    Args:
        batch_size: Samples of one pass over the memory at most, over all processes; changes nothing but speed and, with
            batch norm or augmentation, noise.
        margin: At least 0; the official code's for most data sets. Above 0 it favours earlier tasks.
        ridge: Of the quadratic program, at least 0; the official code's.
        policy: ``"class_balanced"`` gives all tasks seen so far the memory in equal shares, if they have as many
            classes; the official code reserves the share of every task from the start.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a negative margin or ridge.
    """

    state_key: ClassVar[str] = "lightning_cl.GEM"
    bytes_kept: ClassVar[int] = 8  # the task's number
    draws: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5}

    batch_size: int = 128
    margin: float = at_least(0, default=0.5)
    ridge: float = at_least(0, default=1e-3)
    _: KW_ONLY
    policy: ReplayPolicy = "class_balanced"

    def build(self, pl_module: Any, info: Any) -> EveryTasksGradient:
        """The projection; it has no parameters."""
        return EveryTasksGradient(self.margin, self.ridge)
