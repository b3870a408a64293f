"""Joint re-training of few-shot sessions from the same initial weights, with remedies for the imbalance of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least, choice, fraction
from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.combination import remembering
from lightning_cl.callbacks.head_kinds import check_own_rows
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import SeenClassesMethod
from lightning_cl.datamodules.scenarios.cumulative import Cumulative
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.cutmix import cutmix, draw_cutmix
from lightning_cl.nn.heads import cosine_answer
from lightning_cl.nn.imbalance import inverse_weights, ldam_margins, log_priors, with_margins
from lightning_cl.nn.losses import effective_weights
from lightning_cl.nn.weights import Snapshot, overwrite, trained
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.global_batch import own_part, part_rows
from lightning_cl.training.phases import is_last_share
from lightning_cl.training.sharpness import uphill_difference
from lightning_cl.training.step_seed import step_seed
from lightning_cl.training.teacher import weights_and_statistics
from lightning_cl.training.transfer import samples_at

Remedy = Literal["none", "balanced_softmax", "balanced_ce", "ldam", "resample"]


class JointTraining(MethodModule):
    """The weights to begin with, and how many samples each class of the current task has."""

    makes_logits = True
    growing = ("counts",)
    counts: Tensor

    def __init__(self, module: Any, num_classes: int, method: ImbalanceAwareJoint) -> None:
        super().__init__()
        self.method, self.fresh = method, Snapshot(weights_and_statistics(module))
        self.loss_factor = 0.0 if method.remedy in ("balanced_ce", "ldam") else 1.0
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.long))
        self._uphill: dict[str, Tensor] = {}  # what is added to the gradients of the step that is being made

    def start_task(self, module: Any, task: Any) -> None:
        """Begin anew, and count the classes of the task."""
        present = weights_and_statistics(module)
        if not self.fresh.taken:
            self.fresh.take(present)
        overwrite(present, self.fresh.items())
        stream = module.trainer.datamodule
        labels = stream.source.train_labels[stream.layout.train_index[task.index]]
        self.counts.copy_(torch.bincount(labels, minlength=len(self.counts)))

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Cosines with the rows of the head, times the scale; balanced softmax adds the priors while it trains."""
        cosines = cosine_answer(module.continual_head, features, self.method.scale)
        step = module.continual.step
        if step is None or not (self.training and torch.is_grad_enabled()):
            return cosines.to(logits.dtype)
        if self.loss_factor == 0:
            step.memo[self] = cosines
        balanced = self.method.remedy == "balanced_softmax"
        return (cosines + log_priors(self.counts).to(cosines) if balanced else cosines).to(logits.dtype)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Weighted cross-entropy in place of the user's loss."""
        cosines = step.memo.pop(self, None)
        if self.method.radius and step.task.index:
            novel = ~torch.isin(step.targets, self._base(step))
            found = uphill_difference(step, partial(self._part, step, novel), self.method.radius)
            self._uphill = {name: value + self._uphill.get(name, 0) for name, value in found.items()}
        return {} if cosines is None else {self.method.remedy: self._weighed(step, cosines, step.targets).mean()}

    @torch.no_grad()
    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Novel classes learn where the loss is higher."""
        for name, parameter in trained(module, optimizer).items():
            change = self._uphill.pop(name, None)
            if change is not None and parameter.grad is not None:
                parameter.grad += change / module.trainer.accumulate_grad_batches

    @staticmethod
    def _base(step: Step) -> Tensor:
        """Classes of the first task."""
        stream = step.module.trainer.datamodule
        return torch.tensor(stream.info.classes_per_task[0], device=step.targets.device)

    def _part(self, step: Step, rows: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """The share of some rows in the mean loss of the batch."""
        answers, _ = step.learn(step.inputs, weights)
        cosines = step.memo.pop(self, None)
        if cosines is None:
            each = F.cross_entropy(answers, step.targets, reduction="none")
        else:
            each = self._weighed(step, cosines, step.targets)
        return (each * rows).mean()

    def own_step(self, step: Step) -> Tensor | None:
        """The loss on samples that classes share evenly, or on images with a part of such, in place of the user's.

        The labels of image and part count by their areas.
        """
        generator = torch.Generator().manual_seed(step_seed(step.module, 0xC30))
        pastes = float(torch.rand((), generator=generator)) < self.method.paste and self._may_paste(step.module)
        if not pastes and self.method.remedy != "resample":
            return None
        others, theirs = self._drawn_evenly(step, generator)
        if not pastes:
            return F.cross_entropy(step.learn(others)[0], theirs)
        mixed, kept = cutmix(_images(step.inputs), _images(others), *draw_cutmix(generator))
        answers, _ = step.learn(mixed)
        cosines = step.memo.pop(self, None)
        first, second = (
            F.cross_entropy(answers, targets) if cosines is None else self._weighed(step, cosines, targets).mean()
            for targets in (step.targets, theirs)
        )
        return kept * first + (1 - kept) * second

    def _may_paste(self, module: Any) -> bool:
        """Neither in the first three epochs of a task nor in its last."""
        task = module.trainer.datamodule.task
        return bool(3 <= module.trainer.current_epoch - task.first_epoch < task.epochs - 1)

    def _drawn_evenly(self, step: Step, generator: torch.Generator) -> tuple[Any, Tensor]:
        """As many samples of the task as the batch has, with weights ``1 / n_c``, and their labels."""
        module, stream = step.module, step.module.trainer.datamodule
        index = stream.layout.train_index[step.task.index]
        weights = (1 / self.counts.cpu().double())[stream.source.train_labels[index]]
        start, total = own_part(module)
        drawn = index[torch.multinomial(weights, total, replacement=True, generator=generator)]
        rows = part_rows(start, len(step.targets), total)
        return samples_at(module, drawn[rows], stream.train_view, seed=step_seed(module, 0xC31), start=start)

    def _weighed(self, step: Step, cosines: Tensor, targets: Tensor) -> Tensor:
        """``(B,)`` the loss of a remedy that stands in place of the user's."""
        method = self.method
        if method.remedy == "ldam":
            cosines = with_margins(cosines, targets, method.scale * ldam_margins(self.counts))
        weights = inverse_weights(self.counts) if method.remedy == "balanced_ce" else self._deferred(step)
        logits = cosines.masked_fill(~step.module.continual.mask.train_allowed, -torch.inf)
        each = F.cross_entropy(logits, targets, reduction="none")
        return weights.to(each)[targets] * each

    def _deferred(self, step: Step) -> Tensor:
        """Weights by the effective number of samples in the last epochs of a task; before, all weigh the same."""
        share = self.method.deferred
        if not share or not is_last_share(step.module.trainer, share):
            return torch.ones_like(self.counts, dtype=torch.float64)
        return effective_weights(self.counts, 0.9999)


def _images(inputs: Any) -> Tensor:
    if isinstance(inputs, Tensor) and inputs.ndim == 4:
        return inputs
    raise ValueError(
        "ImbalanceAwareJoint pastes parts of images `(B, C, H, W)` into others, but the batch has "
        f"{tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__}; set `paste=0`."
    )


@dataclass(eq=False)
class ImbalanceAwareJoint(SeenClassesMethod):
    """Imbalance-aware joint training, the upper reference of few-shot learning (arXiv:2503.10003).

    Every task begins with the weights with which the fit began, and learns all samples of the task; on a stream whose
    tasks also hold those of the tasks before, ``Cumulative(FewShot(60, 5, 5))``, that is a joint training for each
    session, with the full schedule that ``epochs_per_task`` gives it. Logits are cosines of features and rows of the
    head, times ``scale``. Remedies for base classes having a hundred times the samples of novel ones, with the counts
    ``n`` of the task: ``"balanced_softmax"`` adds ``log(n_c / sum n)`` to the logits in training alone;
    ``"balanced_ce"`` weighs samples by ``1 / n_c``; ``"ldam"`` takes margins ``n_c^(-1/4)`` of at most 0.5 off the
    cosine of the label, if ``deferred``, with weights by effective numbers of samples in the last epochs;
    ``"resample"`` learns, for each batch of the stream, one whose samples are drawn with a weight of ``1 / n_c``. The
    last three stand in place of the user's loss. With equal counts and without margins all are the cross-entropy.

    Beside any of these, with the probability ``paste`` a step is one of CMO: a rectangle of each image is replaced by
    that of an image of the task that was drawn with a weight of ``1 / n_c``, and the labels of both count by their
    areas, in the remedy's loss, which then takes the place of the user's; neither in a task's first three epochs nor in
    its last. Terms of other methods are left out in such steps, and in those of ``"resample"``.

    With a ``radius`` above 0 steps are those of ImbSAM: after the first task, novel classes have the gradient that
    their share of the loss has at ``w + radius g / |g|``, with ``g`` the one at ``w``; base classes have theirs at
    ``w``. A user's loss is then taken for the cross-entropy, and a step makes two more passes. Steps of CMO are plain.

    The past is kept as a whole, by the stream and not by the method: it is a reference and no method for a bounded
    memory. Works on any module with a class head; needs task boundaries; keeps one copy of the weights. Of the paper's
    remedies DeepSMOTE is left out.

    Args:
        remedy: ``"none"``, ``"balanced_softmax"``, ``"balanced_ce"``, ``"ldam"`` or ``"resample"``.
        scale: Of the cosines, above 0; the paper's is 16, and 30 with ``"ldam"``.
        deferred: Share of a task's steps, the last ones, that ``"ldam"`` weighs by effective numbers, in [0, 1].
        paste: Probability of a step of CMO, in [0, 1]; the paper's is 0.5.
        radius: Of ImbSAM, at least 0; the paper's is 0.05. 0 with ``"resample"``, whose steps are its own.

    Raises:
        ValueError: If an argument is out of its range, or for a radius beside ``"resample"``; in ``setup``, on a
            few-shot stream that is not cumulative, or beside a memory; in a step of CMO, if inputs are no images.
    """

    state_key: ClassVar[str] = "lightning_cl.ImbalanceAwareJoint"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = ("begins anew", "`GDumb`, which learns its memory anew")
    rewrites_weights: ClassVar[bool] = True
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"radius": 0.05}

    remedy: Remedy = choice(Remedy, default="balanced_softmax")
    scale: float = above(0, default=16.0)
    deferred: float = fraction(default=0.0)
    paste: float = fraction(default=0.0)
    radius: float = at_least(0, default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remedy == "resample" and self.radius:
            raise ValueError(
                f'`radius` is {self.radius}, but with `remedy="resample"` no step is one of ImbSAM; set `radius=0`, or '
                "choose another remedy."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse few-shot sessions without their past; attach to the module, once."""
        scenario = require_stream(trainer, "ImbalanceAwareJoint").scenario
        if scenario.few_shot and not isinstance(scenario, Cumulative):
            raise ValueError(
                "ImbalanceAwareJoint begins anew in every task and learns the samples of that task alone, but the "
                f"sessions of this stream ({type(scenario).__name__}) do not hold their past; use "
                "`Cumulative(FewShot(...))`."
            )
        if remembering(callbacks_of(trainer)):
            raise ValueError(
                "ImbalanceAwareJoint has the whole past in each task, so a memory would repeat what is there; leave "
                "out the method that replays."
            )
        super().setup(trainer, pl_module, stage)

    def build(self, pl_module: Any, info: Any) -> JointTraining:
        """The weights to start from."""
        check_own_rows(pl_module, "ImbalanceAwareJoint")
        return JointTraining(pl_module, info.num_classes, self)
