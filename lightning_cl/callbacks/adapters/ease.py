"""EASE: an adapter for each task; class means in the feature spaces of all adapters answer together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.adapters.task_adapters import PerTaskMethod, TaskAdapters, folded_adapters
from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.adapters import Adapters, unfolded
from lightning_cl.nn.adapters.paths import beside
from lightning_cl.nn.heads import cosine_answer
from lightning_cl.nn.heads.subspaces import SubspaceMeans
from lightning_cl.training import TaskData


class SubspaceEnsemble(TaskAdapters):
    """A cosine head while a task's adapter learns; class means in the spaces of all finished ones when evaluated."""

    makes_logits = True

    def __init__(self, adapters: Adapters, slots: int, num_classes: int, width: int, others: float) -> None:
        super().__init__(adapters)
        self.means, self.others = SubspaceMeans(slots, num_classes, width), others
        self.scale = nn.Parameter(torch.ones(()))

    @torch.no_grad()
    def start_task(self, module: Any, task: Any) -> None:
        """Fresh adapters, and a fresh scale of the cosines."""
        super().start_task(module, task)
        self.scale.fill_(1.0)

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Cosines with the head's rows while training; when evaluated, those with the class means."""
        if not self.training and self.finished.value:
            spaces = len(self.adapters.paths)
            answer: Tensor = self.means(unfolded(self.adapters, features).unflatten(1, (spaces, -1)), self.others)
            return answer.to(logits.dtype)
        return cosine_answer(module.continual_head, features, self.scale)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Count the means of the task's classes in all spaces, by one pass."""
        super().end_task(module, data)
        spaces = self.finished.value

        for features, labels, _ in data.features(lambda inputs: beside(self.adapters, module.head_input(inputs))):
            self.means.update(features.unflatten(1, (spaces, -1)), labels)


@dataclass(eq=False)
class EASE(PerTaskMethod):
    """Expandable subspace ensemble (EASE; Zhou et al., CVPR 2024, arXiv:2403.12030).

    Each task trains an adapter of its own (that of ``APER``) by the user's loss on its classes, with cosine logits; the
    backbone and all other adapters stay. At its end its classes get means in the spaces of all adapters so far; the
    means of older classes in the new space are made from those of the new classes, by their likeness in the older
    class's own space. A class of task ``i`` answers ``cos(f_i, m_ci) + others / t * sum_{j != i} cos(f_j, m_cj)``.
    Defaults are those of PILOT. Needs the end of a task; keeps an adapter a task, a mean a class and task, and no
    sample. A training step is that of one adapter; an evaluated image passes once for every finished task, in one
    batch. Between two tasks' ends an evaluation knows the classes of finished tasks. Works on timm ViTs.

    Args:
        scale: Of what adapters add, at least 0.
        dropout: Behind the ReLU, in [0, 1].
        others: ``alpha``, weight of the other spaces, at least 0; with 0 a class answers in its own alone.

    Raises:
        ValueError: If a number is out of its range; when attached, without a ViT whose blocks can be adapted.
    """

    state_key: ClassVar[str] = "lightning_cl.EASE"
    boundaries: ClassVar[Boundaries] = "taken"
    replaces_head: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 4, "dropout": 0.0}

    rank: int = 64
    scale: float = at_least(0, default=0.1)
    dropout: float = fraction(default=0.1)
    others: float = at_least(0, default=0.1)

    def build(self, pl_module: Any, info: Any) -> SubspaceEnsemble:
        """Freeze the ViT and put an adapter for each task beside the MLP of every block."""
        adapters = folded_adapters(pl_module, self, info.num_tasks)
        width = pl_module.continual_head.in_features
        return SubspaceEnsemble(adapters, info.num_tasks, info.num_classes, width, self.others)
