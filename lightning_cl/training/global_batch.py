"""Features of a training batch that is shared out over processes, for terms that compare its samples."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_cl.nn.distributed import gather_rows


def global_rows(module: Any, features: Tensor) -> tuple[Tensor, float]:
    """``(B, D)`` features of all processes in the order of the global batch; those of this one carry its gradient.

    Args:
        module: The LightningModule, in a training step.
        features: ``(B_local, D)`` of the stream's batch.

    Returns:
        The rows; and by what a term of them is to be multiplied so that its gradient, weighed by each process's share
        of the batch and averaged over the processes as those of all losses are, is that of one process.
    """
    trainer = module.trainer
    if trainer.world_size == 1:
        return features, 1.0
    longest = -(-trainer.train_dataloader.batch_size // trainer.world_size)
    real = int(trainer.datamodule.train_batch(trainer.fit_loop.batch_idx).real)
    rows, _, weights = gather_rows(features.detach(), features.new_zeros(len(features)), longest, real)
    assert weights is not None
    start = longest * trainer.global_rank
    rows[start : start + real] = features[:real]
    rows = rows[weights > 0]
    return rows, len(rows) / real if real else 0.0
