"""The training data of a task that has just ended: passes over it, shared out over the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_cl.namespace import rank_zero_warn
from lightning_cl.nn.distributed import all_sum, gather_rows
from lightning_cl.training.batch import Inputs, unpack_for
from lightning_cl.training.evaluation_mode import evaluating, in_default_precision
from lightning_cl.training.transfer import transferred

View = Literal["train", "eval"]


class TaskBatch(NamedTuple):
    """The share of a batch that this process has, on the device.

    Attributes:
        inputs: As the module takes them, without the rows that only fill up the share of another process.
        targets: ``(B,)``.
        positions: ``(B,)`` places in the training split, on the CPU.
    """

    inputs: Any
    targets: Tensor
    positions: Tensor


class TaskFeatures(NamedTuple):
    """A global batch, the same on every process.

    Attributes:
        features: ``(B, D)``.
        labels: ``(B,)`` class ids.
        positions: ``(B,)`` places in the training split.
    """

    features: Tensor
    labels: Tensor
    positions: Tensor


@dataclass
class TaskData:
    """Passes over a task's training samples, each of them once a pass.

    Attributes:
        module: The LightningModule, in a fit on a stream.
        task: Which task.
        index: ``(N,)`` positions in the training split; the task's samples when ``None``.
    """

    module: Any
    task: Any
    index: Tensor | None = None

    def over(self, index: Tensor) -> TaskData:
        """Passes over other training samples: a memory's, or such as were kept out of training.

        Args:
            index: ``(N,)`` positions in the training split, at least one.
        """
        return replace(self, index=index)

    def batches(self, view: View = "eval", epoch: int = 0) -> Iterator[TaskBatch]:
        """The shares of this process, of every batch; one may be empty.

        Args:
            view: ``"train"`` for augmented samples, ``"eval"`` for the evaluation transform.
            epoch: Seeds the augmentation.
        """
        for inputs, targets, share, _ in self._passes(view, epoch):
            yield TaskBatch(first_rows(inputs, share.real), targets[: share.real], share.index[: share.real])

    def features(
        self, extract: Callable[[Any], Tensor] | None = None, view: View = "eval", epoch: int = 0
    ) -> Iterator[TaskFeatures]:
        """Features and labels, one global batch after the other, the same on every process.

        Args:
            extract: ``(B, D)`` features of inputs, called in eval mode without gradient; what reaches the head when
                ``None``.
            view: See :meth:`batches`.
            epoch: See :meth:`batches`.
        """
        for inputs, targets, share, longest in self._passes(view, epoch):
            with evaluating(self.module):
                found = (extract or self._head_input)(inputs)
            joint = torch.cat([found.double(), share.index.to(found.device)[:, None].double()], dim=1)
            rows, labels, weights = gather_rows(joint, targets, longest, share.real)
            if weights is not None:
                rows, labels = rows[weights > 0], labels[weights > 0]
            yield TaskFeatures(rows[:, :-1].to(found.dtype), labels.long(), rows[:, -1].long())

    def all_features(
        self, extract: Callable[[Any], Tensor] | None = None, view: View = "eval", epoch: int = 0
    ) -> TaskFeatures:
        """:meth:`features` of the whole task in one piece."""
        batches = list(self.features(extract, view, epoch))
        return TaskFeatures(*(torch.cat(parts) for parts in zip(*batches, strict=True)))

    def _head_input(self, inputs: Any) -> Tensor:
        found: Tensor = self.module.head_input(inputs)
        return found.to(self.module.continual_head.weight.dtype)  # whatever autocast made of it

    def _passes(self, view: View, epoch: int) -> Iterator[tuple[Any, Tensor, Any, int]]:
        """Inputs and targets as a step gets them, which of the rows count, and the most rows of any process."""
        trainer = self.module.trainer
        if self.index is None and trainer.datamodule.online:
            rank_zero_warn(
                "a method passes over the samples of a task once more, but this stream shows each of them once, so "
                "this is no online result; use a method that needs no such pass, or a scenario with tasks."
            )
        loader = trainer.datamodule.train_loader_for(self.task.index, view, epoch, self.index)
        order, longest = loader.sampler.order(), -(-loader.batch_size // trainer.world_size)
        for batch_idx, batch in enumerate(in_default_precision(loader)):
            given = unpack_for(self.module, transferred(trainer, batch))
            yield *given, loader.sampler.batch(order, batch_idx), longest

    def mean(self, total: Tensor, count: int) -> Tensor:
        """The mean over all processes' samples, from this process's sum over its ``count`` samples."""
        samples = all_sum(torch.tensor(float(count), device=total.device, dtype=torch.float64))
        return all_sum(total) / samples.to(total.dtype)


def first_rows(inputs: Any, count: int) -> Any:
    """The first ``count`` rows of a tensor, or of each tensor in a tuple, list or dictionary."""
    return rows_of(inputs, slice(count))


def rows_of(inputs: Any, rows: slice) -> Any:
    """Some rows of a tensor, or of each tensor in a tuple, list or dictionary."""
    return apply_to_collection(inputs, (Tensor, Inputs), lambda part: part[rows])
