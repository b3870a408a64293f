"""MulKI: CLIP is fine-tuned under two teachers, the original and the last model, by relations to class prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least, fraction
from lightning_cl.callbacks.language.clip_method import CLIPPromptMethod
from lightning_cl.callbacks.language.text_features import TextFeatures
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.class_texts import fill_templates
from lightning_cl.nn.clip_prompts import NoPrompts
from lightning_cl.nn.clip_towers import check_text_tower, encode_texts_with, text_tower
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.precision import wide
from lightning_cl.nn.relations import (
    follow_means,
    log_divergence,
    prototype_alignment,
    sample_relations,
    teacher_weights,
    text_relations,
)
from lightning_cl.nn.weights import Snapshot, ema, interpolate, overwrite
from lightning_cl.training import Step, TaskData
from lightning_cl.training.find_backbone import find_clip
from lightning_cl.training.teacher import weights_and_statistics
from lightning_cl.training.trained_body import trained_body


class TaughtTowers(TextFeatures):
    """Both teachers, image prototypes of the classes, and the average of the weights within a task."""

    prototypes: Tensor
    known: Tensor

    def __init__(self, module: Any, texts: Sequence[str], method: MulKI) -> None:
        path, clip = find_clip(module, method.backbone)
        prompts = NoPrompts(text_tower(clip).token_embedding.weight.shape[1])
        super().__init__(module, prompts, texts, method.backbone, method.logit_scale)
        self.method, self.prefix = method, f"{path}."
        self.original, self.previous = (Snapshot(weights_and_statistics(module)) for _ in range(2))
        self.average = Snapshot(trained_body(module) if method.decay else {})
        width = module.continual_head.in_features
        self.register_buffer("prototypes", torch.zeros(len(texts), width))
        self.register_buffer("known", torch.zeros(len(texts), dtype=torch.bool))
        self.growing = ("prototypes", "known")
        self.taught = [torch.empty(0), torch.empty(0)]  # (C, D) text features of both teachers, read where a fit begins

    def _freeze(self, clip: Any) -> None:
        """Train both towers, and not the scale, which the answers do not read."""
        clip.requires_grad_(True)
        for name in ("logit_scale", "logit_bias"):
            if getattr(clip, name, None) is not None:
                getattr(clip, name).requires_grad_(False)

    # ------------------------------------------------------------------ tasks

    def start_run(self, module: Any) -> None:
        """Read the teachers' texts."""
        super().start_run(module)
        self._read_teachers()

    def start_task(self, module: Any, task: Any) -> None:
        """The model as it is becomes the previous teacher, and before the first task the original one, too."""
        super().start_task(module, task)
        known = weights_and_statistics(module)
        for teacher in (self.previous,) if self.original.taken else (self.original, self.previous):
            teacher.take(known)
        self.average.take(trained_body(module))
        self._read_teachers()

    @torch.no_grad()
    def _read_teachers(self) -> None:
        if not self.original.taken:
            return
        clip, tokens = self.texts.clip, self.texts.tokens.to(self.prototypes.device)
        for place, teacher in enumerate((self.original, self.previous)):
            own = {n.removeprefix(self.prefix): w for n, w in teacher.items() if n.startswith(self.prefix)}
            self.taught[place] = encode_texts_with(clip, own, tokens)

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """Let the average follow."""
        if self.method.decay:
            ema(dict(self.average.items()), trained_body(module), self.method.decay)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """``w <- w_previous + (average - w_previous) / (t + 1)`` in the ``t``-th task, from 0."""
        weights, previous = trained_body(module), dict(self.previous.items())
        end = dict(self.average.items()) if self.method.decay else weights
        share = 1 / (data.task.index + 1) if self.method.linked else 1.0
        overwrite(weights, interpolate({name: previous[name] for name in end}, end, share).items())

    # ------------------------------------------------------------------ steps

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Alignment with the prototypes, and what both teachers say of the relations to them."""
        method = self.method
        images = F.normalize(wide(step.features), dim=1)
        self._follow(step, images)
        columns, texts = self._trained_features(step.module)
        columns, texts = columns[self.known[columns]], texts[self.known[columns]].to(images)
        if not len(columns):
            return {}
        prototypes = F.normalize(self.prototypes[columns].to(images), dim=1)
        terms: dict[str, Tensor] = {}
        if method.prototype_weight:
            aligned = prototype_alignment(images, texts, prototypes, step.targets, columns, self.texts.scale)
            terms["mulki_prototypes"] = method.prototype_weight * aligned
        if method.distillation_weight:
            taught = self._taught(step, images, texts, prototypes, columns)
            terms["mulki_relations"] = method.distillation_weight * taught
        return terms

    @torch.no_grad()
    def _follow(self, step: Step, images: Tensor) -> None:
        """Move the prototypes of the batch's classes to the mean of their features, those of all processes."""
        one_hot = F.one_hot(step.targets, len(self.known)).to(images.dtype) * step.counts
        sums = all_sum(torch.cat([one_hot.T @ images.detach(), one_hot.sum(dim=0)[:, None]], dim=1))
        follow_means(self.prototypes, self.known, sums[:, :-1], sums[:, -1:], self.method.prototype_decay)

    def _taught(self, step: Step, images: Tensor, texts: Tensor, prototypes: Tensor, columns: Tensor) -> Tensor:
        """Divergence of the relations from those of each teacher, weighted for each sample."""
        scale, heat = self.texts.scale, 2 / self.texts.scale
        rows = sample_relations(images, prototypes, texts, heat), text_relations(texts, prototypes, heat)
        logits, each = [], []
        for teacher, known in zip((self.original, self.previous), self.taught, strict=True):
            theirs = F.normalize(wide(step.look(weights=dict(teacher.items())).features), dim=1)
            own = known[columns].to(images)
            logits.append(scale * theirs @ own.T)
            of_samples = log_divergence(rows[0], sample_relations(theirs, prototypes, own, heat)).sum(dim=0)  # (B,)
            each.append(of_samples + log_divergence(rows[1], text_relations(own, prototypes, heat)).mean())
        weights = teacher_weights(logits, self.method.temperature)
        return (weights * torch.stack(each)).sum(dim=0).mean()


@dataclass(eq=False)
class MulKI(CLIPPromptMethod):
    """MulKI-style fine-tuning of CLIP under two teachers (arXiv:2411.06764): a reconstruction from its abstract.

    Both towers of CLIP are trained, whatever the module froze; the classifier is the text features of the class names.
    To the cross-entropy come ``prototype_weight`` times the cross-entropies of images with the image prototypes of the
    classes (averages over batches) and of prototypes with texts, and ``distillation_weight * sum_k w_k KL(r_k || r)``:
    relations ``r`` are the softmax of ``[v P, v T, t P]`` at twice the temperature of the answers, of the student and
    of two teachers, the original model (what is never trained) and the one before the task (what was learned), each
    weighted for every sample by how sure it is. Within a task the weights are averaged, and at the end of task ``t``
    (from 0) they become ``w_(t-1) + (average - w_(t-1)) / (t + 1)``. The published weights, temperatures and rules are
    not in public text; no number of the paper is claimed.

    Needs task boundaries, two passes without gradient a step, three copies of what is trained, and prototypes. The
    module is a :class:`~lightning_cl.models.CLIPClassifier`, or any that puts the image features of an open_clip model
    into a ``Linear`` with one output per class. Text features are read again in every step, since their tower learns.

    Args:
        prototype_weight: At least 0.
        distillation_weight: At least 0.
        temperature: Of the weights of the teachers, above 0.
        prototype_decay: Of the prototypes' average over batches, in [0, 1].
        decay: Of the average of the weights over steps, in [0, 1]; 0: the last weights count.
        linked: Go only a part of the way from the last task's weights at a task's end. All defaults are of our own.
        template: What is read of a class; the name takes the place of ``{}``.

    Raises:
        ValueError: If a number is out of its range; when attached, for class names that are missing or not different,
            texts longer than the context, or a text tower of another kind.
    """

    state_key: ClassVar[str] = "lightning_cl.MulKI"
    boundaries: ClassVar[Boundaries] = "taken"
    adapts_backbone: ClassVar[bool] = False
    constrains: ClassVar[bool] = True
    #: Others that name a backbone freeze it.
    trains_backbone: ClassVar[bool] = True

    prototype_weight: float = at_least(0, default=1.0)
    distillation_weight: float = at_least(0, default=1.0)
    temperature: float = above(0, default=1.0)
    prototype_decay: float = fraction(default=0.99)
    decay: float = fraction(default=0.99)
    linked: bool = True
    _: KW_ONLY
    template: str = "a photo of a {}."
    train_mask: TrainMask = "task"

    def build(self, pl_module: Any, info: Any) -> TaughtTowers:
        """Text features answer in the head's place."""
        _, clip = find_clip(pl_module, self.backbone)
        check_text_tower(clip)
        return TaughtTowers(pl_module, fill_templates(self.names(info), [self.template]), self)
