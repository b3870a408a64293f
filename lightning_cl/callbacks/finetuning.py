"""Naive fine-tuning with class masks: FT (``"all"``, ``"seen"``) and FT++ (``"task"``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask


@dataclass(eq=False)
class FineTuning(ContinualMethod):
    """The lower reference: train on each task in turn, with nothing against forgetting.

    With ``train_mask="task"`` (FT++, the baseline of CODA-Prompt, arXiv:2211.13218) only the classes of the current
    task compete in the loss, and the head rows of all other classes stay as they are, bit for bit. The
    released learner of FT++ also builds its optimiser anew for each task, which is ``reset_optimizer=True``. With
    ``"seen"`` or ``"all"`` it is plain fine-tuning; without any callback too, but then evaluation does not mask unseen
    classes.

    Args:
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.
    """

    state_key: ClassVar[str] = "lightning_cl.FineTuning"

    head: str | None = None
    train_mask: TrainMask = "task"
    reset_optimizer: bool = False
