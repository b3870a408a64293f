"""Unlearning objectives: gradient ascent, negative preference, refusal and random labels, and what is retained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least, choice
from lightning_cl.callbacks.stream_kind import StreamKind
from lightning_cl.callbacks.taskwise import SeenClassesMethod
from lightning_cl.callbacks.unlearning.requests import ForgetRequests, seen_losses
from lightning_cl.nn.losses import divergence
from lightning_cl.nn.precision import wide
from lightning_cl.nn.unlearning import negative_preference, refusal
from lightning_cl.nn.weights import Snapshot
from lightning_cl.training import Step
from lightning_cl.training.step_seed import generator_of
from lightning_cl.training.teacher import weights_and_statistics

Objective = Literal["ascent", "npo", "refusal", "random_labels"]
Retained = Literal["labels", "reference"]


class UnlearningObjective(ForgetRequests):
    """The terms of a request, and the model before it."""

    def __init__(self, module: Any, method: Unlearning) -> None:
        super().__init__()
        self.method = method
        asks = method.objective == "npo" or (method.retained == "reference" and method.retain_weight > 0)
        self.reference = Snapshot(weights_and_statistics(module) if asks else {})

    def start_task(self, module: Any, task: Any) -> None:
        """The model before the request is its reference."""
        super().start_task(module, task)
        if task.forgets:
            self.reference.take(weights_and_statistics(module))

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The term of what is to be forgotten, and ``retain_weight`` times that of what is retained."""
        if not len(self.asked):
            return {}
        asked, own = self.is_asked(step), seen_losses(step, step.raw_logits)
        before = step.look(weights=dict(self.reference.items())).raw_logits if self.reference.names else None
        terms = {"unlearning_forget": self._forget(step, asked, own, before)}
        if self.method.retain_weight:
            terms["unlearning_retain"] = self.method.retain_weight * self._retain(step, ~asked, own, before)
        return terms

    def _forget(self, step: Step, asked: Tensor, own: Tensor, before: Tensor | None) -> Tensor:
        if self.method.objective == "ascent":
            bound = self.method.bound
            return self.pushed(step, own, math.log(len(step.task.seen_classes)) if bound is None else bound)
        if self.method.objective == "npo":
            assert before is not None
            return self._preferred(step, asked, own, seen_losses(step, before))
        allowed = step.module.continual.mask.train_allowed.clone()
        if self.method.objective == "refusal":
            allowed[self.asked] = False
            return step.mean_over(asked, refusal(wide(step.raw_logits), allowed))
        labels = self._random_labels(step, allowed.nonzero().flatten())
        return step.mean_over(asked, seen_losses(step, step.raw_logits, labels))

    def _preferred(self, step: Step, asked: Tensor, own: Tensor, known: Tensor) -> Tensor:
        """NPO of every sample, or of the mean over the batch, whose slope is that of all processes' mean."""
        if self.method.per_sample:
            return step.mean_over(asked, negative_preference(own, known, self.method.beta))
        mean = step.mean_over(asked, own)
        now, then = step.over_processes(mean), step.over_processes(step.mean_over(asked, known))
        slope = -2 * torch.sigmoid(-self.method.beta * (now - then))
        return negative_preference(now, then, self.method.beta) + slope * (mean - mean.detach())

    def _random_labels(self, step: Step, classes: Tensor) -> Tensor:
        """``(B,)`` labels drawn once for each training sample of the request, the same in all epochs."""
        trainer = step.module.trainer
        stream, rows = trainer.datamodule, trainer.datamodule.train_batch(trainer.fit_loop.batch_idx).index
        generator = generator_of(step.module, 0x2B1, step.task.index)
        drawn = torch.randint(len(classes), (len(stream.source.train_labels),), generator=generator)
        return classes[drawn[rows].to(classes.device)]

    def _retain(self, step: Step, kept: Tensor, own: Tensor, before: Tensor | None) -> Tensor:
        if self.method.retained == "labels":
            return step.mean_over(kept, own)
        assert before is not None
        allowed = step.module.continual.mask.train_allowed
        return step.mean_over(kept, divergence(step.raw_logits[:, allowed], before[:, allowed]))


@dataclass(eq=False)
class Unlearning(SeenClassesMethod):
    """Unlearning objectives of the OFFSIDE benchmark (gradient ascent, difference, KL, refusal, NPO) for classifiers.

    On a ``Forget`` stream. While classes are learned it is plain training. In the task of a request, with the mean
    cross-entropy ``L_f`` over the batch's samples of the classes to be forgotten, among all seen classes:

    - ``"ascent"``: ``-L_f`` as long as it is below ``bound``, above which nothing is pushed further;
    - ``"npo"``: ``-(2 / beta) log sigmoid(beta (L_f - L_ref))`` (arXiv:2404.05868), where ``ref`` is the model before
      the request; bounded by itself;
    - ``"refusal"``: cross-entropy with the answer that all other classes are as likely, a classifier's form of a
      language model's refusal, of our own;
    - ``"random_labels"``: cross-entropy with labels drawn once for each sample (arXiv:2409.02228).

    To it comes ``retain_weight`` times the cross-entropy of the retained samples (``retained="labels"``: with ascent
    it is gradient difference), or ``KL(p_ref || p)`` over them (``"reference"``: with ascent it is KL-min). Both take
    the place of the user's loss, whose value is still what ``training_step`` logs. The benchmark is of multimodal
    language models; here the losses are those of a classifier. Chance level of what is forgotten is the aim, not zero.

    Needs task boundaries and what the stream lets it read; ``"npo"`` and ``"reference"`` keep a copy of what is trained
    and make one more pass a step. Works on any module with a class head.

    Args:
        objective: For what is to be forgotten.
        retained: For what is retained.
        retain_weight: At least 0; 0: what is retained is not read.
        beta: Of ``"npo"``, above 0; the benchmark's code has 0.9.
        per_sample: ``"npo"`` of every sample as in its paper, and not of the batch's mean as in the benchmark's code.
        bound: Mean cross-entropy in nats up to which ``"ascent"`` pushes, at least 0; ``None``: ``ln C`` of the seen
            classes, which is an answer by chance.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; in ``setup``, on a stream that asks to forget
            nothing.
    """

    state_key: ClassVar[str] = "lightning_cl.Unlearning"
    adds_loss: ClassVar[bool] = True
    stream_kind: ClassVar[StreamKind] = "forget"

    objective: Objective = choice(Objective, default="npo")
    retained: Retained = choice(Retained, default="labels")
    retain_weight: float = at_least(0, default=1.0)
    beta: float = above(0, default=0.9)
    per_sample: bool = False
    bound: float | None = at_least(0, default=None)

    def build(self, pl_module: Any, info: Any) -> UnlearningObjective:
        """The terms, and room for the reference where one is asked."""
        return UnlearningObjective(pl_module, self)
