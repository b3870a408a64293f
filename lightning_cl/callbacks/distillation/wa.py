"""Weight aligning: distillation of old answers, and new rows of the head as long as the old ones."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.distillation.lwf import AnswerTeacher
from lightning_cl.callbacks.distillation.teacher import DistillationMethod, class_counts
from lightning_cl.callbacks.head_kinds import check_linear
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.heads.alignment import align_norms
from lightning_cl.training import Step, TaskData


class AligningTeacher(AnswerTeacher):
    """A teacher that counts for more, the more classes are old; and the alignment."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength * K_old / K_new * T^2 KL(teacher || student)`` over the old classes."""
        old, new = class_counts(step.task)
        return {name: old / max(new, 1) * term for name, term in super().losses(step).items()}

    def end_task(self, module: Any, data: TaskData) -> None:
        """Align the rows of the task's new classes; then the present model is the teacher of the next task."""
        new = list(data.task.new_classes)
        old = list(data.task.old_classes)
        if self.strength and old and new:
            with torch.no_grad():
                align_norms(module.continual_head.weight, old, new)
        super().end_task(module, data)


@dataclass(eq=False)
class WA(DistillationMethod):
    """Weight aligning (WA; Zhao et al., CVPR 2020, arXiv:1911.07053).

    Adds ``strength * K_old / K_new * T^2 KL(softmax(z_old / T) || softmax(z / T))`` over the old classes (see
    :class:`LwF`): the published ``(1 - l) CE + l KD`` with ``l = K_old / (K_old + K_new)``, divided by ``1 - l``. At a
    task's end the head's rows of its new classes become ``mean |w_old| / mean |w_new|`` times as long, biases stay.
    Needs task boundaries and one more forward pass a step; made for a memory: put :class:`ExperienceReplay` beside it.
    Works on any module with a linear class head.

    Args:
        strength: At least 0; with 0 it is plain fine-tuning, without alignment. The published cross-entropy form of the
            distillation has ``1 / T^2`` of this gradient: it is ``strength=0.25`` at ``T = 2``.
        temperature: ``T``, above 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.WA"

    strength: float = 0.25
    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def build(self, pl_module: Any, info: Any) -> AligningTeacher:
        """A copy of the weights that are trained when the method is attached."""
        why, advice = "makes the rows of new classes as long as old ones", "use another head, or `LwF`"
        check_linear(pl_module, type(self).__name__, why, advice)
        return AligningTeacher(pl_module, self.strength, self.temperature)
