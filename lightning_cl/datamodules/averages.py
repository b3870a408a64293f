"""Keeps frozen weights exact beside Lightning's averages of weights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import PYTORCH, LightningModule, Trainer

#: Of Lightning 2.6 and later.
WEIGHT_AVERAGING: Any = getattr(import_module(f"{PYTORCH}.callbacks"), "WeightAveraging", ())


class FrozenWeights:
    """Copies of weights without a gradient, where an average, which is rounded, will take their place."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []

    def take(self, trainer: Trainer, module: LightningModule) -> None:
        """Copy them, if a callback of this Trainer averages weights."""
        averages = any(isinstance(callback, WEIGHT_AVERAGING) for callback in callbacks_of(trainer))
        frozen = [p for p in module.parameters() if averages and not p.requires_grad]
        self._kept = [(parameter, parameter.detach().clone()) for parameter in frozen]

    def restore(self) -> None:
        """Put them back, once."""
        for parameter, value in self._kept:
            parameter.detach().copy_(value)
        self._kept = []
