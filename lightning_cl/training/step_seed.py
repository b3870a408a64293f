"""Seeds of what a method draws in a training step."""

from __future__ import annotations

from typing import Any

from lightning_cl.datamodules.sampling import mix_seed


def step_seed(module: Any, purpose: int) -> int:
    """Of a training step: another one in each step of a fit, the same on all processes and after a resume.

    Args:
        module: The LightningModule, in a fit on a stream.
        purpose: Any number, so that what is drawn for two purposes differs.
    """
    trainer = module.trainer
    return mix_seed(trainer.datamodule.seed, trainer.current_epoch, trainer.fit_loop.batch_idx, purpose)
