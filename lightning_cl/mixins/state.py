"""What a continual LightningModule knows besides its parameters."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.nn.guard import SliceGuard
from lightning_cl.nn.masks import ClassMask

#: Which classes compete in the training loss: those of the current batch or task, all seen so far, or all.
TrainMask = Literal["batch", "task", "seen", "all"]
STRICTNESS: tuple[TrainMask, ...] = ("all", "seen", "task", "batch")


class ContinualState(nn.Module):
    """What :class:`ContinualMixin` knows; the module's one extra attribute ``continual``, so that no name collides.

    Attributes:
        mask: Class mask on the head; its buffers are the only part that is saved.
        info: The stream.
        head_path: Dotted path of the head.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.
        replays: Samples of earlier tasks come again, so ``train_mask="task"`` is read as ``"seen"``.
        methods: ``state_key`` of every attached method, in order.
        configs: For each of them the name of its class and its arguments, if these are plain values.
        guards: Slices that must not move in the current task.
        loss_terms: Terms of the current training step, by name.
        own_parameters: Names of the parameters that the user's module had before any method.
        trained_parameters: Those of them that the methods left trainable.
        grown: Shape in the checkpoint of every tensor that has grown since, with the stream.
    """

    def __init__(self, info: StreamInfo, head_path: str, mask: ClassMask) -> None:
        super().__init__()
        self.mask = mask
        self.info = info
        self.head_path = head_path
        self.train_mask: TrainMask = "all"
        self.reset_optimizer = False
        self.replays = False
        self.methods: list[str] = []
        self.configs: list[dict[str, Any]] = []
        self.guards: list[SliceGuard] = []
        self.loss_terms: dict[str, Tensor] = {}
        self.own_parameters: frozenset[str] = frozenset()
        self.trained_parameters: frozenset[str] = frozenset()
        self.grown: dict[str, torch.Size] = {}
