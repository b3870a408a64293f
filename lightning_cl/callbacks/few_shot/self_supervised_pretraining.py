"""Self-supervised epochs at the start of the base session: two views of an image are told from those of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.few_shot.base_session import BaseSessionMethod
from lightning_cl.callbacks.view_arguments import ViewArguments
from lightning_cl.nn.losses import supervised_contrastive
from lightning_cl.nn.precision import wide
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.contrast import learn_features
from lightning_cl.training.global_batch import global_batch, term_of_all
from lightning_cl.training.loss_terms import zero_through


class ContrastiveEpochs(MethodModule):
    """A projection of features, which the loss compares."""

    def __init__(self, width: int, method: SelfSupervisedPretraining) -> None:
        super().__init__()
        self.epochs, self.temperature = method.epochs, method.temperature
        self.view = method.view
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, method.width))

    def own_step(self, step: Step) -> Tensor | None:
        """In the first epochs: the contrastive loss of two views of every image.

        What it does not reach has a gradient of zero on one process, too, for DDP waits for one of all.
        """
        module = step.module
        if step.task.index or module.trainer.current_epoch >= self.epochs:
            return None
        views = [self.view.of_stream(step, purpose) for purpose in (0x55A, 0x55B)]
        both = [wide(self.project(features)) for features in learn_features(step, views)]
        rows, _, _ = global_batch(module, torch.cat(both, 1), step.targets)
        same = torch.arange(len(rows), device=rows.device).repeat(2)
        loss = term_of_all(module, supervised_contrastive(torch.cat(rows.chunk(2, 1)), same, self.temperature))
        return loss + zero_through((p for p in module.parameters() if p.requires_grad), module.device)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Afterwards a zero for the projection, for whose gradient DDP waits."""
        return {"self_supervised": zero_through(self.parameters(), step.module.device)}


@dataclass(eq=False)
class SelfSupervisedPretraining(BaseSessionMethod, ViewArguments):
    """Trick of few-shot learning: self-supervised pre-training of the encoder, style (after arXiv:2403.14392).

    In the first ``epochs`` epochs of the base session, the first task, each image is seen in two random views, and the
    contrastive loss of SimCLR (arXiv:2002.05709) on a projection (two layers) of what reaches the head takes the place
    of the user's step and of all terms; labels are not read. Then the base session goes on, and the projection is of
    no more use. Put it beside a method that trains in the base session alone, such as :class:`TEEN`. The paper's code
    is not public: which loss, views and epochs are our reading. These epochs are part of the schedule, so compare with
    as many supervised ones. Works on any module with a class head and images; a step of these epochs passes twice the
    batch.

    Args:
        epochs: At least 0; with 0 the run is the same as without the callback.
        temperature: Of the similarities, above 0; SimCLR's.
        width: Of what is compared, at least 1.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, on a stream without a base session.
    """

    state_key: ClassVar[str] = "lightning_cl.SelfSupervisedPretraining"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"width": 6}

    epochs: int = at_least(0, default=1)
    temperature: float = above(0, default=0.5)
    width: int = at_least(1, default=128)

    def build(self, pl_module: Any, info: Any) -> ContrastiveEpochs:
        """A projection with random weights."""
        return ContrastiveEpochs(pl_module.continual_head.in_features, self)
