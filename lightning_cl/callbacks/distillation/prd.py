"""PRD: features learn by contrast, prototypes follow them, and old prototypes keep their relations to new samples."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least, choice
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.distillation.teacher import PreviousModel
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.view_arguments import ViewArguments
from lightning_cl.datamodules.stream_plan import newly_seen
from lightning_cl.nn.heads import cosine_logits
from lightning_cl.nn.losses import distillation, supervised_contrastive
from lightning_cl.nn.precision import wide
from lightning_cl.nn.relations import relations
from lightning_cl.training import Step, TaskData
from lightning_cl.training.contrast import learn_features
from lightning_cl.training.global_batch import global_batch, term_of_all

RelationAxis = Literal["classes", "samples"]


class PrototypeRelations(PreviousModel):
    """Prototypes of classes, a projection to compare samples in, and model and prototypes of the task before."""

    makes_logits = True
    loss_factor = 0.0
    growing = ("prototypes", "old")
    old: Tensor

    def __init__(self, module: Any, num_classes: int, method: PRD) -> None:
        super().__init__(module, method.relation)
        features = module.continual_head.in_features
        self.method, self.view = method, method.view
        self.prototypes = nn.Parameter(0.01 * torch.randn(num_classes, features))  # short, so that they turn quickly
        self.register_buffer("old", torch.zeros(num_classes, features))
        hidden = [nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features), nn.ReLU()]
        self.project = nn.Sequential(*hidden, nn.Linear(features, method.width))

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Cosines with the prototypes."""
        found = cosine_logits(wide(features), wide(self.prototypes), 1.0)
        return found.to(logits.dtype) + 0.0 * logits.sum(1, keepdim=True)  # DDP waits for the head's gradient

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Contrast of the samples, distance to the own prototype, relations to old prototypes; of two views each."""
        module, method, view = step.module, self.method, self.view.of_stream(step, 0x96D)
        first, second = wide(step.features), wide(learn_features(step, [view])[0])
        projected = [wide(self.project(f)) for f in (first, second)]
        rows, labels, _ = global_batch(module, torch.cat(projected, 1), step.targets)
        contrast = supervised_contrastive(torch.cat(rows.chunk(2, 1)), labels.long().repeat(2), method.temperature)
        features, own = torch.cat([first, second]), self.prototypes[step.targets.long()].repeat(2, 1)
        near = (1 - F.cosine_similarity(features.detach(), own, dim=1)).mean()
        terms = {
            "prd_contrast": method.temperature / 0.07 * term_of_all(module, contrast),
            "prd_prototypes": method.pull * near,
        }
        if self.strength and self.weights.taken:
            weights = dict(self.weights.items())
            before = torch.cat([wide(step.look(inputs, weights).features) for inputs in (step.inputs, view)])
            terms["prd_relations"] = self.strength * self._relations(step, features, before)
        return terms

    def _relations(self, step: Step, features: Tensor, before: Tensor) -> Tensor:
        """Divergence of the relations from those before, summed over the tasks before, or over samples of all."""
        groups = [new for new in newly_seen(step.module.continual.info.classes_per_task[: step.task.index]) if new]
        if not groups:
            return 0.0 * features.sum()
        old = torch.tensor([c for group in groups for c in group], device=features.device)
        now, then = relations(features, self.prototypes[old]), relations(before, self.old[old].to(before))
        if self.method.relation_axis == "classes":
            sizes = [len(group) for group in groups]
            pairs = zip(now.split(sizes, 1), then.split(sizes, 1), strict=True)
            return torch.stack([distillation(a, b) for a, b in pairs]).sum()
        views = [part for table in (now, then) for part in table.chunk(2)]
        rows, _, _ = global_batch(step.module, torch.cat(views, 1), step.targets)
        first, second, third, fourth = rows.chunk(4, 1)
        term = distillation(torch.cat([first, second]).T, torch.cat([third, fourth]).T)
        return term_of_all(step.module, term)

    def end_task(self, module: Any, data: TaskData) -> None:
        """The present model and prototypes are what the next task is held to."""
        super().end_task(module, data)
        self.old.copy_(self.prototypes.detach())


@dataclass(eq=False)
class PRD(ContinualMethod, ViewArguments):
    """Prototype-sample relation distillation (PRD; Asadi et al., ICML 2023, arXiv:2303.14771); keeps no sample.

    In place of the user's loss: ``temperature / 0.07`` times the supervised contrastive loss of two views in a
    projection of three layers; ``pull`` times ``1 - cos(f, p_y)`` with features ``f`` that get no gradient, which moves
    prototypes ``p`` only; and ``relation`` times the divergence of old prototypes' relations ``f . p / |p|`` to the
    present samples from those of model and prototypes at the end of the task before. It compares, for every sample, the
    softmax over the classes of each old task (``relation_axis="classes"``, as in the released code, and the default),
    or, for every old prototype, the softmax over the samples of the batch (``"samples"``, as the paper says). The
    highest cosine with a prototype answers. What ``training_step`` returns is multiplied by 0. Prototypes are trained
    by the user's optimiser (the paper gives them plain descent of rate 0.01); the model before is asked in eval mode.
    Needs task boundaries; works on any module with a class head (inputs that are no images have no second view but
    their repetition). A step makes one more forward pass, and two of the model before; a copy of it is kept.

    Args:
        pull: At least 0.
        relation: At least 0; 0: the model before is not asked. It and ``pull`` are the released code's.
        relation_axis: See above.
        temperature: Of the contrastive loss, above 0.
        width: Of the projection, at least 1.
        train_mask: Of no effect.

    Raises:
        ValueError: For a number out of its range; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.PRD"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = ("takes its copy", "`SCR`, which compares the stream with a memory")
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    trains_head: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"width": 6}

    pull: float = at_least(0, default=2.0)
    relation: float = at_least(0, default=4.0)
    relation_axis: RelationAxis = choice(RelationAxis, default="classes")
    temperature: float = above(0, default=0.1)
    width: int = at_least(1, default=128)
    _: KW_ONLY
    reset_optimizer: bool = True

    def build(self, pl_module: Any, info: Any) -> PrototypeRelations:
        """Random prototypes and a random projection."""
        return PrototypeRelations(pl_module, info.num_classes, self)
