"""Language guidance for prompt pools (LGCL, arXiv:2308.15827): keys near a task's text, features near a class's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.language_head import orthonormal


def guidance(rows: Tensor, wanted: Tensor, unwanted: Tensor | None = None) -> Tensor:
    """``mean(1 - cos(row, wanted) + cos(row, unwanted))``, in [-1, 3]; without ``unwanted`` in [0, 2].

    Args:
        rows: ``(N, D)`` keys or features.
        wanted: ``(D,)`` or ``(N, D)`` text to come near to.
        unwanted: As ``wanted``: text to keep away from.
    """
    loss = 1 - F.cosine_similarity(rows, wanted.expand_as(rows), dim=-1)
    if unwanted is not None:
        loss = loss + F.cosine_similarity(rows, unwanted.expand_as(rows), dim=-1)
    return loss.mean()


def other_classes(labels: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor | None:
    """``(B,)`` a class of the task that is not the sample's; ``None`` if the task has no other.

    Drawn per class, not per sample, so that it does not depend on how a batch is shared out over processes.

    Args:
        labels: ``(B,)`` class ids; those that are not of the task may be among them.
        classes: ``(n,)`` class ids of the task.
        generator: On the CPU, in the same state on all processes.
    """
    count = len(classes)
    if count < 2:
        return None
    steps = torch.randint(1, count, (count,), generator=generator).to(labels.device)
    classes = classes.to(labels.device)
    place = (labels[:, None] == classes).long().argmax(1)  # 0 for a class of another task: any will do
    return classes[(place + steps[place]) % count]


class TextGuide(nn.Module):
    """Vectors of classes and of tasks in the feature space, frozen.

    Args:
        num_classes: ``C``.
        num_tasks: ``T``.
        width: Feature size, ``D``.
        text_dim: Length of the texts' vectors; turned into the feature space where it differs.
        seed: Of that turn.
    """

    classes: Tensor
    known: Tensor
    tasks: Tensor
    turn: Tensor | None

    growing = ("classes", "known", "tasks")

    def __init__(self, num_classes: int, num_tasks: int, width: int, text_dim: int, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("classes", torch.zeros(num_classes, width))
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("tasks", torch.zeros(num_tasks, width))
        self.register_buffer("turn", orthonormal(width, text_dim, seed) if width != text_dim else None)

    def _turned(self, vectors: Tensor) -> Tensor:
        rows = vectors.double() if self.turn is None else vectors.double() @ self.turn.cpu().double().T
        return F.normalize(rows, dim=-1).to(self.classes)

    def add_classes(self, classes: Tensor, vectors: Tensor) -> None:
        """Vectors ``(n, text_dim)`` of the classes ``(n,)``."""
        self.classes[classes.to(self.classes.device)] = self._turned(vectors)
        self.known[classes.to(self.known.device)] = True

    def describe_task(self, task: int, classes: Tensor) -> None:
        """Let the mean of the classes ``(n,)``, which are known, stand for a task."""
        rows = self.classes[classes.to(self.classes.device)].double()
        self.tasks[task] = F.normalize(rows.mean(0), dim=0).to(self.tasks)

    def add_task(self, task: int, vector: Tensor) -> None:
        """Vector ``(text_dim,)`` of a task."""
        self.tasks[task] = self._turned(vector)
