"""Seeds of what a method draws, the same on all processes and after a resume."""

from __future__ import annotations

from typing import Any

import torch

from lightning_cl.datamodules.sampling import mix_seed


def step_seed(module: Any, purpose: int) -> int:
    """Of a training step: another one in each step of a fit, the same on all processes and after a resume.

    Args:
        module: The LightningModule, in a fit on a stream.
        purpose: Any number, so that what is drawn for two purposes differs.
    """
    trainer = module.trainer
    return mix_seed(trainer.datamodule.seed, trainer.current_epoch, trainer.fit_loop.batch_idx, purpose)


def generator_of(module: Any, *purpose: int) -> torch.Generator:
    """One on the CPU that is seeded by the stream and by numbers, such as a purpose's own and the task's.

    Args:
        module: The LightningModule, in a fit on a stream.
        purpose: So that what is drawn for two purposes differs.
    """
    return torch.Generator().manual_seed(mix_seed(module.trainer.datamodule.seed, *purpose))
