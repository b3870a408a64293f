"""Pre-assigned prototypes: in the base session classes are drawn to rows of a simplex fixed for the whole stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.few_shot.base_session import BaseSessionMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import whole
from lightning_cl.nn.heads import ETFHead
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.loss_terms import zero_through


class FixedPrototypes(MethodModule):
    """The simplex, and a projection to as many channels as it needs."""

    def __init__(self, module: Any, num_classes: int, scale: float, classes: int | None = None) -> None:
        super().__init__()
        head, allocated = module.continual_head, max(classes or 0, num_classes)
        width = max(head.in_features, allocated - 1)
        self.num_classes = num_classes
        narrow = width != head.in_features
        self.projection = nn.Linear(head.in_features, width, dtype=head.weight.dtype) if narrow else nn.Identity()
        self.simplex = ETFHead(width, allocated, torch.Generator().manual_seed(0), scale).to(head.weight.dtype)
        self.finished = Counter()

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Cosines with the simplex in the base session; afterwards what the method beside it answers."""
        if self.finished.value:
            return logits + zero_through(self.parameters(), logits.device) if self.training else logits
        answers: Tensor = self.simplex(self.projection(features.to(self.simplex.weight.dtype)))
        head = [p for p in module.continual_head.parameters() if p.requires_grad]
        return answers[:, : self.num_classes].to(logits.dtype) + zero_through(head, logits.device)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The head in the base session, in which it does not answer."""
        head = module.continual_head.parameters()
        return whole(p for p in head if p.requires_grad and not self.finished.value)

    def end_task(self, module: Any, data: TaskData) -> None:
        """The base session is over."""
        self.finished.set(1)


@dataclass(eq=False)
class PreassignedPrototypes(BaseSessionMethod):
    """Trick of few-shot learning: prototypes assigned before training, style (after arXiv:2403.14392).

    In the base session, the first task, the logits are ``scale * cos(P f, m_c)`` with the rows ``m`` of a simplex for
    the classes of the whole stream (:class:`~lightning_cl.nn.ETFHead`; any two at the same angle), so that directions
    are left for novel classes; ``P`` is a linear layer that is learned where features have fewer channels than the
    simplex needs, else the identity. The user's loss is made of these logits. Afterwards the method beside it answers:
    :class:`TEEN`, say, by the means of the features ``f``. The paper's code is not public: projection, loss and the
    return to means of features are our reading. Works on any module with a class head; costs no pass.

    Args:
        scale: Of the cosines, above 0.
        classes: Rows of the simplex where more classes may come than the stream has.
        train_mask: Which classes compete in the training loss; with ``"all"`` novel ones push from the start.

    Raises:
        ValueError: If ``scale`` is not above 0; in ``setup``, on a stream without a base session.
    """

    state_key: ClassVar[str] = "lightning_cl.PreassignedPrototypes"
    needs_forward: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"classes": 10}

    scale: float = above(0, default=16.0)
    classes: int | None = None

    def build(self, pl_module: Any, info: Any) -> FixedPrototypes:
        """The simplex and the projection."""
        return FixedPrototypes(pl_module, info.num_classes, self.scale, self.classes)
