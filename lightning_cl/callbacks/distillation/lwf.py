"""Learning without forgetting: the model as it was before the task teaches its answers for the old classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.distillation.teacher import DistillationMethod, PreviousModel
from lightning_cl.nn.losses import distillation
from lightning_cl.training import Step


class AnswerTeacher(PreviousModel):
    """Teaches its answers for the classes that it knew.

    Args:
        module: The LightningModule.
        strength: Of the term.
        temperature: Above 0.
        groups: For each task the classes that have a softmax of their own; ``None``: all old classes share one.
    """

    def __init__(
        self, module: Any, strength: float, temperature: float, groups: Sequence[Sequence[int]] | None = None
    ) -> None:
        super().__init__(module, strength)
        self.temperature, self.groups = temperature, groups

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength * T^2 KL(teacher || student)`` over the old classes, or summed over those of every old task."""
        old = step.old_classes
        call = None if old is None else self.asked(step)
        if call is None:
            return {}
        groups = [old] if self.groups is None else [list(group) for group in self.groups[: step.task.index] if group]
        pairs = [(step.raw_logits[:, columns], call.raw_logits[:, columns]) for columns in groups]
        terms = [distillation(student, teacher, self.temperature) for student, teacher in pairs]
        return {"lwf": self.strength * torch.stack(terms).sum()}


@dataclass(eq=False)
class LwF(DistillationMethod):
    """Learning without forgetting (Li & Hoiem, TPAMI 2018, arXiv:1606.09282), class- or task-incremental.

    Adds ``strength * T^2 KL(softmax(z_old / T) || softmax(z / T))`` over the classes of earlier tasks: ``z`` are the
    head's raw logits, ``z_old`` those of the model at the end of the task before, on the same batch in eval mode. The
    published cross-entropy form has ``1 / T^2`` of this gradient. Needs task boundaries and one more forward pass a
    step; keeps one copy of what is trained and no sample. Works on any module with a class head. With
    ``train_mask="task"`` the head's rows of old classes stay as they are, with ``"seen"`` the term trains them, too.
    With ``per_task`` every earlier task has a softmax of its own, and the divergences are summed: the paper's form, for
    streams that are evaluated within tasks (``task_il`` in the report).

    Args:
        strength: Weight of the term, at least 0; with 0 it is plain fine-tuning.
        temperature: ``T``, above 0; 2 is the paper's.
        per_task: Compare the answers within the classes of each earlier task, not among all old classes.
        train_mask: Which classes compete in the training loss; ``"task"`` is the form of the specification.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.LwF"

    per_task: bool = False

    def build(self, pl_module: Any, info: Any) -> AnswerTeacher:
        """A copy of the weights that are trained when the method is attached."""
        return AnswerTeacher(pl_module, self.strength, self.temperature, _first_held(info) if self.per_task else None)


def _first_held(info: Any) -> list[list[int]]:
    """For each task the classes that no earlier one held."""
    held = [info.seen_classes(task) for task in range(info.num_tasks)]
    return [sorted(set(now) - set(before)) for before, now in zip([(), *held], held, strict=False)]
