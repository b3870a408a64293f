"""What reaches the head for all training images of a task: one pass without gradient, shared out over the processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lightning_cl.mixins.batch import unpack
from lightning_cl.nn.distributed import gather_rows

if TYPE_CHECKING:
    from lightning_cl.mixins.base import ContinualMixin


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradient; afterwards every part is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        torch.clear_autocast_cache()  # 16-bit copies of weights made here would have no gradient (torch < 2.6)


def in_default_precision(batches: Iterable[Any]) -> Iterator[Any]:
    """Fetch batches as between two steps: within one, ``precision="64-true"`` lets transforms draw other numbers."""
    iterator = iter(batches)
    while True:
        within = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            batch = next(iterator)
        except StopIteration:
            return
        finally:
            torch.set_default_dtype(within)
        yield batch


def task_features(
    module: ContinualMixin, task: int, view: Literal["train", "eval"] = "eval", epoch: int = 0
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features of a task's training samples, one global batch after the other, the same on every process.

    Args:
        module: In a fit on a stream; call it within :func:`evaluating`.
        task: Which task.
        view: ``"train"`` for augmented images, ``"eval"`` for the evaluation transform.
        epoch: Seeds the augmentation.

    Yields:
        ``(B, D)`` features in the head's dtype, ``(B,)`` class ids and ``(B,)`` positions in the training split.
    """
    trainer: Any = module.trainer
    loader = trainer.datamodule.train_loader_for(task, view, epoch)
    sampler, order = loader.sampler, loader.sampler.order()
    longest = -(-loader.batch_size // trainer.world_size)
    for batch_idx, batch in enumerate(in_default_precision(loader)):
        batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
        inputs, targets = unpack(trainer.strategy.batch_to_device(batch), module.continual.batch_keys)
        found = module.head_input(inputs).to(module.continual_head.weight.dtype)  # whatever autocast made of it
        share = sampler.batch(order, batch_idx)
        joint = torch.cat([found.double(), share.index.to(found.device)[:, None].double()], dim=1)
        rows, labels, weights = gather_rows(joint, targets, longest, share.real)
        if weights is not None:
            rows, labels = rows[weights > 0], labels[weights > 0]
        yield rows[:, :-1].to(found.dtype), labels.long(), rows[:, -1].long()
