"""Learning without forgetting: the model as it was before the task teaches its answers for the old classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import choice
from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.distillation.teacher import DistillationMethod, PreviousModel
from lightning_cl.callbacks.distillation.token_teacher import TokenTeacher
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.datamodules.stream_plan import newly_seen
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.losses import distillation, divergence
from lightning_cl.training import Step

#: The model that teaches: the one at the end of the task before, or the one before the first task.
Reference = Literal["last", "start"]
#: Of the divergence: from the teacher's answers to the student's (``"forward"``), or from the student's.
Direction = Literal["forward", "reverse"]


class AnswerTeacher(PreviousModel):
    """Teaches its answers for the classes that it knew.

    Args:
        module: The LightningModule.
        strength: Of the term.
        temperature: Above 0.
        groups: For each task the classes that have a softmax of their own; ``None``: all old classes share one.
        reverse: See :func:`~lightning_cl.nn.divergence`.
    """

    def __init__(
        self,
        module: Any,
        strength: float,
        temperature: float,
        groups: Sequence[Sequence[int]] | None = None,
        reverse: bool = False,
    ) -> None:
        super().__init__(module, strength)
        self.temperature, self.groups, self.reverse = temperature, groups, reverse

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength * T^2 KL(teacher || student)`` over the old classes, or summed over those of every old task."""
        old = step.old_classes
        call = None if old is None else self.asked(step)
        if call is None:
            return {}
        groups = [old] if self.groups is None else [list(group) for group in self.groups[: step.task.index] if group]
        pairs = [(step.raw_logits[:, columns], call.raw_logits[:, columns]) for columns in groups]
        terms = [self._term(student, teacher) for student, teacher in pairs]
        return {"lwf": self.strength * torch.stack(terms).sum()}

    def _term(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.reverse:
            return self.temperature**2 * divergence(student, teacher, self.temperature, reverse=True).mean()
        return distillation(student, teacher, self.temperature)


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

    On a stream without classes the module is a language model, of ``transformers`` or any other, and the term is the
    same over the words of its vocabulary, a mean over the answers that count: those to labels other than -100 (one
    token before, where the labels are the tokens themselves), or those of the ``attention_mask``. There ``head`` names
    the layer that makes the logits of tokens, if it is not found. With ``temperature=1``, ``direction="reverse"`` and
    ``reference="start"`` it is the anchor to a reference policy, as reinforcement learning has it:
    ``strength * KL(p || p_start)``.

    Args:
        strength: Weight of the term, at least 0; with 0 it is plain fine-tuning.
        temperature: ``T``, above 0; 2 is the paper's.
        per_task: Compare the answers within the classes of each earlier task, not among all old classes.
        direction: ``"forward"``: ``KL(teacher || student)``, the paper's; ``"reverse"``: ``KL(student || teacher)``.
        reference: The teacher is the model at the end of the task before (``"last"``), or the one before the first
            task (``"start"``), which knows no class, so that a stream must have none.
        train_mask: Which classes compete in the training loss; ``"task"`` is the form of the specification.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; in ``setup``, if the model before the first
            task is to teach classes, ``per_task`` is set where there are none, or the layer that answers for tokens is
            not found.
    """

    state_key: ClassVar[str] = "lightning_cl.LwF"

    per_task: bool = False
    direction: Direction = choice(Direction, default="forward")
    reference: Reference = choice(Reference, default="last")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._classes = True

    @property
    def needs_forward(self) -> bool:  # type: ignore[override]
        """A language model's call is repeated as the user made it."""
        return self._classes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the stream, and attach."""
        self._classes = require_stream(trainer, "LwF").source.has_classes
        super().setup(trainer, pl_module, stage)

    @property
    def boundaries(self) -> Boundaries:  # type: ignore[override]
        """The model before the first task needs none."""
        return "taken" if self.reference == "last" else "unused"

    def build(self, pl_module: Any, info: Any) -> PreviousModel:
        """A copy of the weights that are trained when the method is attached."""
        reverse, from_start = self.direction == "reverse", self.reference == "start"
        if pl_module.continual.head_path is None:
            if self.per_task:
                raise ValueError(
                    "`per_task` compares answers within the classes of each task, but this stream has no classes; set "
                    "`per_task=False`."
                )
            return TokenTeacher(pl_module, self.strength, self.temperature, reverse, from_start, self.head)
        if from_start:
            raise ValueError(
                '`reference="start"` lets the model before the first task teach, but it knows none of the classes of '
                'this stream; set `reference="last"`.'
            )
        groups = newly_seen(info.classes_per_task) if self.per_task else None
        return AnswerTeacher(pl_module, self.strength, self.temperature, groups, reverse)
