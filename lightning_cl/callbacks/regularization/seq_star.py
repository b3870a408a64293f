"""SEQ*: the encoder learns for the first epochs of the stream and then stays, and so do rows of finished classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.datamodules.task import Task
from lightning_cl.mixins.base import TrainMask
from lightning_cl.training import MethodModule, Phases, Step
from lightning_cl.training.head_only import drop_idle_gradients, head_only_step, idle_in_eval_mode


class WarmEncoder(MethodModule):
    """A warm-up of everything at the start of the first task; afterwards the head learns alone."""

    def __init__(self, warmup_epochs: int, freeze_old_rows: bool) -> None:
        super().__init__()
        self.warmup_epochs, self.freeze_old_rows = warmup_epochs, freeze_old_rows
        self.phases = Phases(first=[("warm-up", self._warmup)], between="frozen")

    def _warmup(self, task: Task) -> int:
        return 0 if task.index else self.warmup_epochs

    def frozen(self, module: Any) -> bool:
        """Whether the warm-up is over."""
        return self.phases.now(module) == "frozen"

    def own_step(self, step: Step) -> Any:
        """The user's step on features that are cut off from the graph, with the encoder in evaluation mode."""
        if not self.frozen(step.module):
            return None
        with idle_in_eval_mode(step.module):
            return head_only_step(step)

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Without a gradient no optimiser moves the encoder, whatever momentum and decay it has."""
        if self.frozen(module):
            drop_idle_gradients(module)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of the classes of earlier tasks that are not in this one."""
        task = module.trainer.datamodule.task
        finished = sorted(set(task.old_classes) - set(task.classes))
        if self.freeze_old_rows and finished:
            yield from module.head_rows(torch.tensor(finished, device=module.device))


@dataclass(eq=False)
class SEQStar(ContinualMethod):
    """SEQ*: sequential fine-tuning with the encoder frozen (Zheng et al., ACL 2024, arXiv:2312.07887).

    A pre-trained encoder forgets little; its classifier does. So, in the paper's steps: (P) the columns of all classes
    of the stream compete in the loss from the first step on (``train_mask="all"``; ``"seen"`` is without); (W) encoder
    and head learn together in the first ``warmup_epochs`` epochs of the first task; (F) then the encoder stays bit for
    bit, in evaluation mode, and the head learns alone; (fix) rows of finished classes stay. A class that comes again
    learns again. The paper's cosine variant is a ``CosineHead(..., learn_scale=False)`` in the module. In head-only
    steps terms of methods beside it are left out, and nothing behind the head has a backward pass. Works on any module
    with a class head, also on vision; needs task boundaries and no memory; costs no pass.

    Args:
        warmup_epochs: Of the first task, at least 0; 3 in the released code for encoders, 1 for generative models.
            Where the first task has no more epochs, the encoder is frozen from the second task on.
        freeze_old_rows: Whether rows of finished classes stay.

    Raises:
        ValueError: If ``warmup_epochs`` is below 0; in ``setup``, on a stream of one ordered pass.
    """

    state_key: ClassVar[str] = "lightning_cl.SEQStar"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = (
        "freezes the encoder and finished classes",
        "`PrototypeClassifier`, which needs no boundaries",
    )
    constrains: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"warmup_epochs": 1}

    warmup_epochs: int = at_least(0, default=3)
    freeze_old_rows: bool = True
    _: KW_ONLY
    train_mask: TrainMask = "all"
    reset_optimizer: bool = True

    def build(self, pl_module: Any, info: Any) -> WarmEncoder:
        """Nothing is kept."""
        return WarmEncoder(self.warmup_epochs, self.freeze_old_rows)
