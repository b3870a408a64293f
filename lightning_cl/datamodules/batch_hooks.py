"""Calls the batch hooks of the LightningDataModule that a source wraps, in the place of the stream's."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning_cl.datamodules.batches import StreamBatches
from lightning_cl.namespace import is_overridden


def install_batch_hooks(stream: StreamBatches) -> None:
    """Give a stream the hooks of its source's data module; those that the stream's class defines win.

    As Lightning has it, a hook of the data module comes in the place of the module's.
    """
    for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        stream.__dict__.pop(name, None)
        if name in stream.source.batch_hooks and not is_overridden(name, stream):
            stream.__dict__[name] = partial(_call_hook, stream, name)


def _call_hook(stream: StreamBatches, name: str, batch: Any, *args: Any) -> Any:
    trainer: Any = stream.trainer
    joins = name == "on_after_batch_transfer" and hasattr(trainer.lightning_module, "join_memory")
    if joins and not stream.source.multi_label:
        batch = trainer.lightning_module.join_memory(batch)
    batch = stream.source.batch_hooks[name](trainer, batch, *args)
    # What was remembered of an image of several classes are those of the task then, not of the present one.
    return trainer.lightning_module.join_memory(batch) if joins and stream.source.multi_label else batch
