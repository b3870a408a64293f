"""A batch's way from its loader to the device, with the user's hooks, as in Lightning's own loops."""

from __future__ import annotations

from typing import Any

from lightning_cl.namespace import Trainer


def converted(trainer: Trainer, batch: Any) -> Any:
    """Convert a batch to the Trainer's precision, and call ``on_before_batch_transfer``; it stays on the host."""
    batch = trainer.precision_plugin.convert_input(batch)
    return trainer.lightning_module._on_before_batch_transfer(batch, 0)


def transferred(trainer: Trainer, batch: Any) -> Any:
    """Convert a batch and move it to the device; all of the user's transfer hooks are called."""
    return trainer.strategy.batch_to_device(converted(trainer, batch))
