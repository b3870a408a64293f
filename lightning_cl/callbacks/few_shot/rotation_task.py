"""A rotation task in the base session: the network also tells by how many quarter turns an image was turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.few_shot.base_term import BaseTerm, BaseTermMethod, turned, with_images
from lightning_cl.training import Step


class RotationTerm(BaseTerm):
    """A linear layer that tells the turn from the features."""

    name = "rotation"

    def __init__(self, module: Any, strength: float) -> None:
        super().__init__(strength)
        self.layer = nn.Linear(module.continual_head.in_features, 4, dtype=module.continual_head.weight.dtype)

    def term(self, step: Step) -> Tensor:
        """Cross-entropy of the turns of a batch, each image with one that changes from epoch to epoch."""
        turns = turns_of(step, len(step.targets)).to(step.targets.device)
        _, call = step.learn(with_images(step.inputs, lambda images: turned(images, turns), "RotationTask"))
        return F.cross_entropy(self.layer(call.features.to(self.layer.weight.dtype)), turns)


def turns_of(step: Step, count: int) -> Tensor:
    """``(count,)`` quarter turns of a batch's samples, by their place in the training split and the epoch."""
    trainer = step.module.trainer
    places = trainer.datamodule.train_batch(trainer.fit_loop.batch_idx).index
    joined = torch.arange(count - len(places))  # replayed samples behind the stream's
    turns: Tensor = (torch.cat([places, joined]) + trainer.current_epoch) % 4
    return turns


@dataclass(eq=False)
class RotationTask(BaseTermMethod):
    """Trick of few-shot learning: rotation prediction beside the classes, style (after arXiv:2403.14392).

    Adds ``strength`` times the cross-entropy of a linear layer on the features that tells by which of four quarter
    turns an image was turned, in the base session, the first task; afterwards it does nothing and the layer is not
    asked. Every image is turned once a step, by another turn in every epoch. Put it beside a method that trains in the
    base session alone, :class:`TEEN` say. The paper's code is not public; the weight is our reading. Works on images of
    equal height and width; a step of the base session makes one more forward pass.

    Raises:
        ValueError: If ``strength`` is negative; in ``setup``, on a stream without a base session; in the first step, if
            inputs are no square images.
    """

    state_key: ClassVar[str] = "lightning_cl.RotationTask"
    needs_images: ClassVar[bool] = True

    strength: float = 0.5

    def build(self, pl_module: Any, info: Any) -> RotationTerm:
        """The layer that tells turns."""
        return RotationTerm(pl_module, self.strength)
