"""ER-ACE: new classes do not push old ones away, since each sample of the stream competes within its batch alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.masks import ClassMask
from lightning_cl.training import MethodModule, Step


class AsymmetricReplay(MethodModule):
    """The term of the memory, in which all seen classes compete."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``CE(z, y)`` on a batch of the memory."""
        drawn = step.module.draw()
        if drawn is None:
            return {}
        with seen_classes(step.module.continual.mask):
            answers, _ = step.learn(drawn.inputs)
        return {"er_ace_memory": drawn.weight * F.cross_entropy(answers, drawn.labels)}


@contextmanager
def seen_classes(mask: ClassMask) -> Iterator[None]:
    """Let all classes compete that an evaluation may answer with."""
    kept = mask.train_allowed.clone()
    mask.train_allowed.copy_(mask.eval_allowed)
    try:
        yield
    finally:
        mask.train_allowed.copy_(kept)


@dataclass(eq=False)
class ERACE(ExperienceReplay):
    """Experience replay with asymmetric cross-entropy (ER-ACE; Caccia et al., ICLR 2022, arXiv:2104.05025).

    ``CE(x, y over the classes of the batch) + CE(x', y' over all seen classes)``: the samples ``x`` of the stream
    compete within the classes present in their batch (of all processes), so that they do not push the others' logits
    down; a batch ``x'`` of the memory teaches all of them. Replay begins as soon as the memory holds a sample. Code
    bases that leave further columns unmasked in the first term, or take the mean of the two, differ. Needs no task
    boundary; works on any module with a class head. A step makes one more forward pass.

    Args:
        batch_size: Samples of the batch from the memory, over all processes; fewer while the memory fills.
        policy: See :class:`ExperienceReplay`; the paper's is ``"reservoir"``.
        train_mask: Of the stream's samples; with ``"seen"`` the two terms are alike, as in plain replay.

    Raises:
        ValueError: As :class:`ExperienceReplay`.
    """

    state_key: ClassVar[str] = "lightning_cl.ERACE"
    adds_loss: ClassVar[bool] = True
    joins: ClassVar[bool] = False

    _: KW_ONLY
    train_mask: TrainMask = "batch"

    def build(self, pl_module: Any, info: Any) -> AsymmetricReplay:
        """The term of the memory; it has no parameters."""
        return AsymmetricReplay()
