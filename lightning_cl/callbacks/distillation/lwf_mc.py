"""LwF.MC: every class is a binary problem, and the model before the task gives the targets of old classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.distillation.teacher import PreviousModel
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import SeenClassesMethod
from lightning_cl.nn.losses import binary_distillation
from lightning_cl.training import Step


class SigmoidTeacher(PreviousModel):
    """A binary loss in place of the user's, with the teacher's answers as targets of the classes that it knew."""

    loss_factor = 0.0

    def __init__(self, module: Any) -> None:
        super().__init__(module, strength=1.0)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Mean binary cross-entropy over the classes that compete."""
        call, columns = self.asked(step), step.module.continual.mask.train_allowed
        taught = torch.zeros(len(columns), dtype=torch.bool)
        taught[[c for c in step.task.seen_classes if c not in step.task.classes]] = True
        teacher = None if call is None else call.raw_logits
        term = binary_distillation(
            step.raw_logits, step.targets, columns, teacher, taught.to(columns.device, non_blocking=True)
        )
        return {"binary": term}


@dataclass(eq=False)
class LwFMC(SeenClassesMethod):
    """LwF.MC, iCaRL without exemplars (Rebuffi et al., CVPR 2017, arXiv:1611.07725, section 4).

    The loss is ``mean_x mean_c BCE(z_c(x), t_c(x))`` over the classes seen, in place of the user's: ``z`` are the
    head's raw logits, the target ``t_c`` of a class that the task does not hold is ``sigmoid(z_c)`` of the model at the
    end of the task before, on the same batch in eval mode; of the others it is 1 for the label and else 0. What
    ``training_step`` returns is multiplied by 0, so its own regularisers do not count. The highest logit is the answer.
    Nothing is to be chosen. Needs task boundaries and one more forward pass a step; keeps one copy of what is trained
    and no sample. Works on any module with a class head. :class:`ICaRL` is this with exemplars.

    Args:
        train_mask: Which classes are in the mean: those ``"seen"``, as in the paper, or ``"all"``.
    """

    state_key: ClassVar[str] = "lightning_cl.LwFMC"
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True

    def build(self, pl_module: Any, info: Any) -> SigmoidTeacher:
        """A copy of the weights that are trained when the method is attached."""
        return SigmoidTeacher(pl_module)
