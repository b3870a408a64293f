"""Right answers by task in an evaluation that somebody else makes, in both label spaces from the same logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_cl.callbacks.head_capture import HeadCapture
from lightning_cl.metrics import class_table

if TYPE_CHECKING:
    from lightning_cl.datamodules import StreamInfo
    from lightning_cl.datamodules.layout import EvalBatch

SPACES = ("class_il", "task_il")


class TaskCounts:
    """Counts one evaluation after the other; the logits are read where they leave the head.

    Args:
        pl_module: The module that is evaluated.
        info: Of its stream.
        head: Dotted path of the head; found when ``None``.

    Raises:
        ValueError: If the head cannot be found.
    """

    def __init__(self, pl_module: nn.Module, info: StreamInfo, head: str | None) -> None:
        self._capture = HeadCapture(pl_module, info.num_classes, head)
        self._classes_per_task = info.classes_per_task
        self._counts = torch.empty(0)
        self._seen = torch.empty(0)
        self._of_task = torch.empty(0, 0)

    def start(self, classes: Sequence[int], device: torch.device) -> None:
        """Begin to listen and to count.

        Args:
            classes: Those that compete in the class-incremental space.
            device: Of the module.
        """
        self._capture.start()
        self._counts = torch.zeros(len(SPACES), 2, len(self._classes_per_task), dtype=torch.long, device=device)
        columns = self._capture.layer.out_features
        self._seen = class_table([classes], columns, device)[0]
        if self._of_task.shape[1] != columns:
            self._of_task = class_table(self._classes_per_task, columns, device)
        self._of_task = self._of_task.to(device)  # built once: it is as large as tasks times classes

    @property
    def columns(self) -> int:
        """Outputs of the head."""
        return self._capture.layer.out_features

    def add(self, samples: EvalBatch, answers: Tensor | None = None) -> Tensor:
        """Count a batch, whose logits have left the head.

        Args:
            samples: Of the batch.
            answers: ``(B, C)`` scores that count instead of the head's, or ``(B,)`` classes that count in the
                class-incremental space, where they cannot be restricted to the classes seen.

        Returns:
            ``(B, C)`` logits of the head.
        """
        found = self._capture.take(len(samples.labels))
        logits = answers if answers is not None and answers.ndim == 2 else found
        labels = samples.labels.to(logits.device, non_blocking=True)
        tasks = samples.tasks.to(logits.device, non_blocking=True)
        for space, allowed in enumerate((self._seen, self._of_task[tasks])):
            chosen = logits.masked_fill(~allowed, -torch.inf).argmax(-1)
            if answers is not None and answers.ndim == 1 and space == 0:
                chosen = answers.to(labels)
            hits = chosen == labels
            self._counts[space, 0].index_add_(0, tasks, hits.long())
            self._counts[space, 1].index_add_(0, tasks, torch.ones_like(tasks))
        return found

    def finish(self, trainer: Trainer) -> Tensor:
        """``(2, 2, T)`` int64 on the CPU: label space, right answers or all samples, task; over all processes."""
        self._capture.stop()
        reduced: Tensor = trainer.strategy.reduce(self._counts, reduce_op="sum").cpu()
        return reduced


def grown(counts: Tensor, tasks: int, value: float = 0) -> Tensor:
    """``(T,)`` or ``(T, T)`` counts of a shorter stream in ``tasks`` rows (and columns); new cells have the value."""
    missing = max(tasks - len(counts), 0)
    return nn.functional.pad(counts, (0, missing) * counts.ndim, value=value)
