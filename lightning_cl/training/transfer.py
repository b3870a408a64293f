"""A batch's way from its loader to the device, with the user's hooks, as in Lightning's own loops."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_cl.namespace import Trainer
from lightning_cl.training.batch import unpack_for


def converted(trainer: Trainer, batch: Any) -> Any:
    """Convert a batch to the Trainer's precision, and call ``on_before_batch_transfer``; it stays on the host."""
    batch = trainer.precision_plugin.convert_input(batch)
    return trainer.lightning_module._on_before_batch_transfer(batch, 0)


def transferred(trainer: Trainer, batch: Any) -> Any:
    """Convert a batch and move it to the device; all of the user's transfer hooks are called."""
    return trainer.strategy.batch_to_device(converted(trainer, batch))


def samples_at(module: Any, index: Tensor, view: str = "eval", **options: Any) -> tuple[Any, Tensor]:
    """Inputs and targets of some training samples on the device, as a step gets them.

    Args:
        module: The LightningModule, in a fit on a stream.
        index: ``(n,)`` positions in the training split, on the CPU.
        view: ``"train"`` for augmented samples, ``"eval"`` for the evaluation transform.
        options: More of the stream's ``batch``.
    """
    return unpack_for(module, transferred(module.trainer, module.trainer.datamodule.batch(index, view=view, **options)))
