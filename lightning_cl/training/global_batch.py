"""Features of a training batch that is shared out over processes, for terms that compare its samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import share
from lightning_cl.nn.distributed import gather_rows
from lightning_cl.training.memory import Drawn


def global_rows(module: Any, features: Tensor) -> tuple[Tensor, float]:
    """:func:`global_batch` of features alone: the rows and the factor."""
    rows, _, factor = global_batch(module, features, features.new_zeros(len(features)))
    return rows, factor


def global_batch(module: Any, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, float]:
    """``(B, D)`` features of all processes in the order of the global batch; those of this one carry its gradient.

    Args:
        module: The LightningModule, in a training step.
        features: ``(B_local, D)`` of the stream's batch.
        targets: ``(B_local,)``.

    Returns:
        The rows; their ``(B,)`` targets; and by what a term of them is to be multiplied so that its gradient, weighed
        by each process's share of the batch and averaged over the processes as those of all losses are, is that of one
        process.
    """
    trainer = module.trainer
    if trainer.world_size == 1:
        return features, targets, 1.0
    longest = -(-trainer.train_dataloader.batch_size // trainer.world_size)
    real = int(trainer.datamodule.train_batch(trainer.fit_loop.batch_idx).real)
    rows, labels, weights = gather_rows(features.detach(), targets, longest, real)
    assert weights is not None
    start = longest * trainer.global_rank
    rows[start : start + real] = features[:real]
    rows, labels = rows[weights > 0], labels[weights > 0]
    return rows, labels, len(rows) / real if real else 0.0


def own_part(module: Any) -> tuple[int, int]:
    """Where this process's samples begin in the batch of all processes, and how many that has."""
    trainer = module.trainer
    total = int(trainer.datamodule.train_batch_size(trainer.fit_loop.batch_idx))
    return share(total, trainer.world_size, trainer.global_rank)[0], total


def part_rows(start: int, count: int, total: int) -> Tensor:
    """``(count,)`` rows of a batch of ``total`` from ``start`` on; a process without a sample repeats the last one."""
    return (start + torch.arange(count)).clamp(max=total - 1)


def drawn_batch(module: Any, drawn: Drawn, features: Tensor) -> tuple[Tensor, Tensor]:
    """``(n, D)`` features of a whole batch from the memory, and ``(n,)`` labels; own rows carry their gradient.

    Args:
        module: The LightningModule, in a training step.
        drawn: What this process has of the batch.
        features: ``(n_local, D)`` of its rows.
    """
    trainer = module.trainer
    if trainer.world_size == 1:
        return features, drawn.labels
    rows, labels, weights = gather_rows(features.detach(), drawn.labels, drawn.total, drawn.real)
    assert weights is not None
    start = drawn.total * trainer.global_rank
    rows[start : start + drawn.real] = features[: drawn.real]
    return rows[weights > 0], labels[weights > 0]


def term_of_all(module: Any, term: Tensor) -> Tensor:
    """A term of the rows of all processes as one of this process's loss, with the gradient that one process would have.

    Args:
        module: The LightningModule, in a training step.
        term: The same on all processes; only this process's rows carry a gradient.
    """
    trainer = module.trainer
    if trainer.world_size == 1:
        return term
    weight = trainer.datamodule.train_weight(trainer.fit_loop.batch_idx)  # of this process's loss in DDP's mean
    factor = trainer.world_size / weight if weight else 0.0
    return with_own_gradient(term, factor)


def with_own_gradient(term: Tensor, factor: float) -> Tensor:
    """A term of the rows of all processes, with the gradient of this one's, weighed as the loss of a step will be.

    Args:
        term: Its value stays.
        factor: Of the gradient, as :func:`global_batch` gives it.
    """
    return term.detach() + factor * (term - term.detach())
