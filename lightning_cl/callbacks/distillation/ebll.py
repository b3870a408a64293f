"""Encoder-based lifelong learning: beside its answers, the codes of earlier tasks in the features stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.distillation.lwf import AnswerTeacher
from lightning_cl.callbacks.distillation.teacher import DistillationMethod
from lightning_cl.nn.autoencoders import FeatureAutoencoders
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.training import HeadCall, Step, TaskData
from lightning_cl.training.step_seed import generator_of


class CodeTeacher(AnswerTeacher):
    """Teaches its answers for the classes that it knew, and the code of its features for every earlier task."""

    def __init__(self, module: Any, num_tasks: int, method: EBLL) -> None:
        super().__init__(module, method.strength, method.temperature)
        self.alpha, self.steps, self.lr = method.alpha, method.steps, method.lr
        head = module.continual_head
        self.autoencoders = FeatureAutoencoders(num_tasks, head.in_features, method.code, head.weight.device)
        self.finished = Counter()

    def asked(self, step: Step) -> HeadCall | None:
        """Once a step, for both terms."""
        if self not in step.memo:
            step.memo[self] = super().asked(step)
        found: HeadCall | None = step.memo[self]
        return found

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The term of LwF, and ``alpha / 2 * sum_t |sigma(W_t f(x)) - sigma(W_t f_old(x))|^2``, mean over the batch."""
        call = self.asked(step)
        if call is None or step.old_classes is None:
            return {}
        found = super().losses(step)
        if self.alpha and self.finished.value:
            bank = self.autoencoders
            away = [
                (bank.code(task, step.features) - bank.code(task, call.features.detach())).square()
                for task in range(self.finished.value)
            ]
            found["ebll"] = self.alpha / 2 * torch.stack([part.sum(1).mean() for part in away]).sum()
        return found

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Fit the task's autoencoder on its features, and take the present model as the teacher."""
        if self.strength:
            task, features = self.finished.value, data.all_features().features
            generator = generator_of(module, 0xEB, task)
            self.autoencoders.fit(task, features, generator, self.steps, self.lr)
            send_from_first_process(self.autoencoders.buffers())
        self.finished.set(self.finished.value + 1)
        super().end_task(module, data)


@dataclass(eq=False)
class EBLL(DistillationMethod):
    """Encoder-based lifelong learning (EBLL; Rannen et al., ICCV 2017, arXiv:1704.01920), style.

    Adds to the term of :class:`LwF` ``alpha / 2 * sum_t |sigma(W_t f(x)) - sigma(W_t f_old(x))|^2``: ``f`` is what the
    head is given, ``f_old`` that of the model at the end of the task before, and ``sigma(W_t .)`` the code of an
    under-complete autoencoder that was fitted on the features of task ``t`` at its end and stays as it is. So features
    may move where earlier tasks do not look. In this style and not a reproduction: the paper also fits the autoencoder
    by the task's own loss. Needs task boundaries and one more forward pass a step; keeps one copy of what is trained,
    ``2 K D`` numbers a task, and no sample. Works on any module with a class head.

    Args:
        strength: Weight of the term of LwF, at least 0; with 0 it is plain fine-tuning.
        temperature: Of the term of LwF, above 0; 2 is the paper's.
        alpha: Weight of the codes' term, at least 0; the paper's are 1e-3 and 1e-2.
        code: Hidden units of an autoencoder, at least 1.
        steps: Of Adam on an autoencoder, at least 1.
        lr: Of these steps, above 0; it, ``code`` and ``steps`` are chosen here.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.EBLL"
    small: ClassVar[dict[str, Any]] = {"code": 3, "steps": 5, "alpha": 0.5}

    alpha: float = at_least(0, default=0.01)
    code: int = at_least(1, default=32)
    steps: int = at_least(1, default=300)
    lr: float = above(0, default=0.01)

    def build(self, pl_module: Any, info: Any) -> CodeTeacher:
        """A copy of the weights that are trained when the method is attached, and room for an autoencoder a task."""
        return CodeTeacher(pl_module, info.num_tasks, self)
