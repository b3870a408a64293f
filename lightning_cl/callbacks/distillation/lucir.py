"""LUCIR: a cosine head, features held to those of the model before the task, and a margin around old classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.distillation.teacher import PreviousModel, class_counts
from lightning_cl.callbacks.head_kinds import check_linear
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import SeenClassesMethod
from lightning_cl.nn.head_layer import class_rows
from lightning_cl.nn.heads import PrototypeHead, cosine_answer, cosine_logits, imprint_rows
from lightning_cl.nn.losses import cosine_distance, ranking_margin
from lightning_cl.training import Step, TaskData


class RebalancedTeacher(PreviousModel):
    """A cosine head with a learned scale, the less-forget term and the margin."""

    makes_logits = True

    def __init__(self, module: Any, strength: float, margin: float, margin_strength: float, rivals: int, scale: float):
        super().__init__(module, strength)
        self.margin, self.margin_strength, self.rivals = margin, margin_strength, rivals
        self.scale = nn.Parameter(torch.full((), scale))

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` cosines with the head's rows, times the scale."""
        return cosine_answer(module.continual_head, features, self.scale)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength * sqrt(K_old / K_new) * (1 - cos)`` of the features, and the margin of the old samples."""
        call, (old, new) = self.asked(step), class_counts(step.task)
        terms = {} if call is None else {"features": cosine_distance(step.features, call.features)}
        terms = {name: self.strength * sqrt(old / max(new, 1)) * term for name, term in terms.items()}
        if self.margin_strength and step.old_classes is not None and new:
            terms["margin"] = self.margin_strength * self._margin(step, step.old_classes)
        return terms

    def _margin(self, step: Step, old: Tensor) -> Tensor:
        cosines = cosine_logits(step.features, class_rows(step.module.continual_head), 1.0)
        new = torch.tensor(step.task.new_classes, device=cosines.device)
        each = ranking_margin(cosines, step.targets, new, self.margin, self.rivals)
        return step.mean_over(torch.isin(step.targets, old), each)

    def start_task(self, module: Any, task: Any) -> None:
        """Imprint the rows of new classes; not in an online stream, whose samples are yet to come."""
        old, new = list(task.old_classes), task.new_classes
        if old and new and task.order != "stream":
            head = module.continual_head
            means = PrototypeHead(head.out_features, head.in_features).to(head.weight.device)
            for features, labels, _ in TaskData(module, task).features():
                means.update(features, labels)
            imprint_rows(head.weight, means.means, old, new)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of old classes stay."""
        old = module.continual.old_classes(module.trainer.datamodule.task, module.device)
        if old is not None:
            yield module.continual_head.weight, old


@dataclass(eq=False)
class LUCIR(SeenClassesMethod):
    """LUCIR, a unified classifier learned incrementally via rebalancing (Hou et al., CVPR 2019).

    Logits are ``s * cos(f, w_c)`` with a learned scale ``s``. Adds ``strength * sqrt(K_old / K_new) * mean_x
    (1 - cos(f(x), f_old(x)))``, where ``f_old`` is what the model before the task gives its head in eval mode, and, for
    the samples of old classes among the batch, ``margin_strength * mean relu(margin - cos(f, w_y) + cos(f, w_r))`` over
    the ``rivals`` new classes ``r`` with the highest cosines. At a task's start a row of a new class becomes its mean
    feature of unit length, as long as old rows are; old rows stay. The paper's fine-tuning on a balanced set after a
    task is not here. Needs task boundaries and one more forward pass a step, and a pass over the task at its start;
    made for a memory: put :class:`ExperienceReplay` beside it, or the margin has no sample. Works on any module with a
    linear class head; the paper takes the last ReLU out of its ResNet, so that features have both signs.

    Args:
        strength: ``lambda`` of the less-forget term, at least 0; the paper's for CIFAR-100 is 5.
        margin: At least 0; the paper's.
        margin_strength: Weight of the margin, at least 0.
        rivals: New classes that an old sample is held away from, at least 1; the paper's.
        scale: ``s`` at the start, above 0. It is trained at the user's learning rate: 1, which is the paper's, needs
            many steps at a high one.

    Raises:
        ValueError: If a number is out of its range; when attached, for a head that is not linear.
    """

    state_key: ClassVar[str] = "lightning_cl.LUCIR"
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True

    strength: float = at_least(0, default=5.0)
    margin: float = at_least(0, default=0.5)
    margin_strength: float = at_least(0, default=1.0)
    rivals: int = at_least(1, default=2)
    scale: float = above(0, default=1.0)

    def build(self, pl_module: Any, info: Any) -> RebalancedTeacher:
        """A copy of the weights that are trained when the method is attached, and the scale."""
        why, advice = "begins the rows of new classes with class means", "use another head, or `LwF`"
        check_linear(pl_module, type(self).__name__, why, advice)
        numbers = (self.strength, self.margin, self.margin_strength, self.rivals, self.scale)
        return RebalancedTeacher(pl_module, *numbers)
