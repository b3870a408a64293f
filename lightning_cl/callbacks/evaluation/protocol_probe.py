"""Pass a small fixed probe of evaluation samples through a module in batches of every kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collections
from torch import Tensor

from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.side_effects import draw
from lightning_cl.callbacks.evaluation.silent_evaluation import SilentEvaluation
from lightning_cl.callbacks.evaluation.task_identity import is_told
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.stream_plan import EvalBatch
from lightning_cl.namespace import LightningModule, Trainer


def evenly(part: Tensor, count: int) -> Tensor:
    """At most ``count`` of ``(N,)`` values, evenly spaced."""
    kept = min(count, len(part))
    return part[torch.arange(kept) * len(part) // max(kept, 1)]


def probe_index(parts: Sequence[Tensor], count: int) -> Tensor:
    """``(<= count,)`` positions, spread evenly over the tasks and within each, the tasks in turn.

    Args:
        parts: For each task the positions of its samples.
        count: How many at most.
    """
    filled = [part for part in parts if len(part)]
    if len(filled) > count:  # as many tasks, the last one among them
        filled = [filled[-1 - place * len(filled) // count] for place in range(count)]
    each = -(-count // len(filled))
    spread = [evenly(part, each) for part in filled]
    in_turn = [part[place] for place in range(each) for part in spread if place < len(part)]
    return torch.stack(in_turn[:count])


def in_batches(rows: Tensor, size: int) -> list[Tensor]:
    """Rows of the probe in batches of ``size``."""
    return list(rows.split(size))


def by_task(tasks: Tensor, size: int) -> list[Tensor]:
    """Rows of the probe in batches of one task each; ``tasks``: ``(N,)``."""
    return [batch for task in tasks.unique() for batch in (tasks == task).nonzero().flatten().split(size)]


def with_others_labels(batch: Any, other: Any) -> Any:
    """The batch with labels and task ids (all whole numbers, one per sample) of another batch of that size."""

    def choose(mine: Tensor, others: Tensor) -> Tensor:
        return others if mine.ndim <= 1 and not mine.is_floating_point() else mine

    return apply_to_collections(batch, other, Tensor, choose)


@contextmanager
def claiming(trainer: Trainer, stream: ContinualDataModule, task: int) -> Iterator[None]:
    """The stream says that ``task`` is current, and the Trainer that its first epoch is.

    What has been seen stays as it is: which classes exist is no secret in a class-incremental evaluation.
    """
    own, now, exposed = type(stream), stream.task, stream.exposed_classes
    told = replace(stream.task_at(task), seen_classes=now.seen_classes)
    answers = {"task": told, "task_index": task, "exposed_classes": exposed}
    progress: Any = trainer.fit_loop.epoch_progress.current
    epochs = progress.processed, progress.completed  # which of them is `current_epoch` depends on Lightning's version
    stream.__class__ = type(own.__name__, (own,), {name: _always(value) for name, value in answers.items()})
    progress.processed = progress.completed = told.first_epoch
    try:
        yield
    finally:
        stream.__class__ = own
        progress.processed, progress.completed = epochs


def _always(value: Any) -> property:
    return property(lambda _: value)


class Probe:
    """A fixed number of evaluation samples of the tasks seen so far.

    Args:
        trainer: The Trainer, in a fit or a validation.
        pl_module: Its module.
        stream: Its stream.
        capture: Reads the logits.
        count: Samples at most; the cost of all passes is a multiple of it, whatever the number of tasks.
    """

    def __init__(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        stream: ContinualDataModule,
        capture: HeadCapture,
        count: int,
    ) -> None:
        self.trainer, self.pl_module, self.stream, self.capture = trainer, pl_module, stream, capture
        data = stream.eval_data("anytime")
        self.index = probe_index(data.index[: stream.task_index + 1], count)
        self.tasks = data.task_of[self.index]
        #: A method is told the task of the samples, so every batch is of one.
        self.told = is_told(stream, pl_module)
        self.rows = torch.arange(len(self.index))
        self.loader = stream.anytime_dataloader(self.index)
        self.full = min(self.loader.batch_size, len(self.index))

    def logits(self, batches: Sequence[Tensor], mislabelled: bool = False, later: bool = False) -> Tensor:
        """``(N, C)`` logits on the CPU, of the probe's rows in these batches, in the probe's order.

        Args:
            batches: Rows of the probe, each once.
            mislabelled: Give the batches labels and task ids of other samples.
            later: With the random generators as they are at another time; a pass leaves them as it found them.
        """
        answers: list[Tensor] = []
        if self.told:
            batches = [rows[part] for rows in batches for part in by_task(self.tasks[rows], len(rows))]
        with SilentEvaluation(self.trainer, self.pl_module, self.capture) as evaluation:
            if later:
                draw(self.trainer.strategy.root_device)
            for rows in batches:
                batch, samples = self._batch(rows)
                if mislabelled:
                    other, theirs = self._batch((rows + self._far()) % len(self.index))
                    batch, samples = with_others_labels(batch, other), replace(theirs, index=samples.index)
                told = int(self.tasks[rows[0]]) if self.told else None
                answers.append(evaluation.logits(batch, 0, len(rows), samples=samples, task=told).cpu())
        return torch.cat(answers)[torch.cat(list(batches)).argsort()]

    def _batch(self, rows: Tensor) -> tuple[Any, EvalBatch]:
        """A batch, and what the stream says of its samples."""
        index = self.index[rows]
        batch = self.loader.dataset.__getitems__([(i, None) for i in index.tolist()])
        return batch, self.stream.eval_data("anytime").batch(index)

    def _far(self) -> int:
        """A distance in the probe between samples of different tasks, or at least of different classes."""
        half, tasks = len(self.index) // 2, len(self.tasks.unique())
        return half if half % tasks else half + 1

    def remembered(self) -> tuple[Tensor, Tensor]:
        """``(n, C)`` logits with the caches of features in use, and which rows of the probe they are of."""
        answers, rows = [], []
        place = {position: row for row, position in enumerate(self.index.tolist())}
        with SilentEvaluation(self.trainer, self.pl_module, self.capture) as evaluation:
            for batch_idx, batch in enumerate(self.loader):
                index = self.stream.eval_batch(batch_idx, "anytime").index
                answers.append(evaluation.logits(batch, batch_idx, len(index), "anytime").cpu())
                rows += [place[position] for position in index.tolist()]
        return torch.cat(answers), torch.tensor(rows, dtype=torch.long)
