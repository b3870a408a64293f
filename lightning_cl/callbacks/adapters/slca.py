"""SLCA: all weights learn, the backbone slowly; at a task's end the head is aligned with Gaussians of all classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from lightning_cl.callbacks.adapters.aligned_gaussians import AlignedGaussians
from lightning_cl.callbacks.arguments import above, at_least, choice, fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.heads.aging import AgingGaussians, Shrink, age_share, normalized_cross_entropy
from lightning_cl.nn.heads.statistics import Covariance
from lightning_cl.nn.losses import reverse_cross_entropy
from lightning_cl.training import Step, TaskData
from lightning_cl.training.trained_body import trained_body


class SlowBackbone(AlignedGaussians):
    """Steps of the backbone made small; class Gaussians, and a head that is aligned with them."""

    def __init__(self, module: Any, method: SLCA, num_classes: int) -> None:
        super().__init__()
        self.keep_gaussians(method, module.continual_head, num_classes)
        self.loss_factor, self.answers = method.direct, Counter()

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Slow the backbone down."""
        self.slow_down(trained_body(module, optimizer).values(), self.method.backbone_lr)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Reverse cross-entropy of the classes that compete (SLCA++)."""
        if not self.method.reverse:
            return {}
        allowed = step.module.continual.mask.train_allowed
        return {"reverse": self.method.reverse * reverse_cross_entropy(step.raw_logits, step.targets, allowed)}

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Those of the aligned head, when it is evaluated at a task's end."""
        if self.training or not self.answers.value:
            return logits
        aligned: Tensor = self.aligned(module.continual_head, features)
        return aligned

    def start_task(self, module: Any, task: Any) -> None:
        """The head answers itself again."""
        self.answers.set(0)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Count the task's classes with the backbone as it is now; align the head from the second task on."""
        index = data.task.index
        for features, labels, _ in data.features():
            self.statistics.update(features, labels)
        self.task_of[list(data.task.classes)] = index
        if index and self.method.align_epochs:
            self._align_with_age(module.continual_head, index)
            self.answers.set(1)

    def _align_with_age(self, head: Any, index: int) -> None:
        method, classes = self.method, self.known_classes()
        found, tasks = self.statistics.gaussians(classes), self.task_of[classes]
        if method.shrink == "means":
            found = replace(found, mean=found.mean * age_share(tasks, index)[:, None])
        elif method.shrink == "samples":
            found = AgingGaussians(found.classes, found.mean, found.factor, index - tasks)
        loss = partial(normalized_cross_entropy, tasks=tasks, temperature=method.temperature)
        self.align(head, found, index, loss=loss)


@dataclass(eq=False)
class SLCA(TaskwiseMethod):
    """Slow learner with classifier alignment (SLCA; Zhang et al., ICCV 2023, arXiv:2303.05118).

    All weights are trained on the current task's classes, those of the backbone with ``backbone_lr`` times the
    learning rate of the head: their optimiser steps are scaled. At a task's end the mean and covariance (+ 1e-4) of
    its classes' features are taken, and never again; then the head is trained on draws ``N(a_c mu_c, Sigma_c)`` of all
    classes, ``a_c = 0.9 + 0.1 (t_c + 1) / (t + 1)``, by cross-entropy of ``z / (n temperature)``, where ``n`` is the
    mean over the tasks of the length of their logits. The aligned head answers at that end; the head itself
    stays as it was trained. Defaults are those of the official code. Needs the end of a task; keeps
    ``D + D^2`` numbers a class, two heads, and one copy of the backbone within a step; no sample. Works on any module
    with a class head; behind ``LoRA`` in the list of callbacks it is the low-rank form of SLCA++ (arXiv:2408.08295),
    whose ``direct``, ``reverse`` and ``shrink="samples"`` are here; its scaling of old rows and its start of LoRA from
    singular vectors are not.

    Args:
        backbone_lr: Share of the head's learning rate, in [0, 1].
        align_epochs: Of the alignment, at least 0; with 0, and ``backbone_lr=1``, it is plain fine-tuning.
        align_lr: Its learning rate at first, above 0.
        samples: Drawn from each class in an epoch, at least 1.
        temperature: Of the alignment, above 0.
        covariance: ``"class"``, ``"shared"`` or ``"diagonal"``: the last two need less memory.
        shrink: ``"means"`` of old classes; ``"samples"``: each by ``1 + s (t - t_c)``, ``s`` in [0.01, 0.03] (SLCA++);
            or ``"none"``.
        direct: Weight of the user's loss, at least 0.
        reverse: Weight of the reverse cross-entropy, at least 0; SLCA++ has 1 and 0.1, or 0.5 and 0.5.

    Raises:
        ValueError: If a number is out of its range or a choice unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.SLCA"
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"samples": 8, "align_epochs": 2, "backbone_lr": 0.1}

    backbone_lr: float = fraction(default=0.01)
    align_epochs: int = at_least(0, default=5)
    align_lr: float = above(0, default=0.01)
    samples: int = at_least(1, default=256)
    temperature: float = above(0, default=0.1)
    covariance: Covariance = choice(("class", "shared", "diagonal"), default="class")
    shrink: Shrink = choice(Shrink, default="means")
    direct: float = at_least(0, default=1.0)
    reverse: float = at_least(0, default=0.0)

    def build(self, pl_module: Any, info: Any) -> SlowBackbone:
        """Statistics of no class yet."""
        return SlowBackbone(pl_module, self, info.num_classes)
