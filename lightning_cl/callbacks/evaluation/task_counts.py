"""Counts of right answers in one evaluation: by task in both label spaces, or by task and class on sets of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.datamodules.stream_plan import EvalBatch
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.metrics import GroupAccuracy, class_il_predictions, class_table, task_il_predictions
from lightning_cl.namespace import Trainer

SPACES = ("class_il", "task_il")
#: Confusions of more classes are not counted: their matrix would be larger than most models.
MOST_CLASSES = 1000


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
        self._accuracies = [GroupAccuracy(info.num_tasks) for _ in SPACES]
        self._classes_per_task = info.classes_per_task
        self._info, self._seen, self._of_task = info, torch.empty(0), torch.empty(0, 0)
        self._num_classes = info.num_classes
        self._confusion = torch.empty(0)

    def start(self, classes: Sequence[int], device: torch.device) -> None:
        """Begin to listen and to count.

        Args:
            classes: Those that compete in the class-incremental space.
            device: Of the module.
        """
        self._capture.start()
        columns = self._capture.layer.out_features
        self._seen = competitors(classes, self._info, columns, device)
        if self._of_task.shape[1] != columns:  # built once: it is as large as tasks times classes
            self._of_task = class_table(self._classes_per_task, columns)
        self._of_task = self._of_task.to(device)
        for accuracy in self._accuracies:
            accuracy.to(device).reset()
        cells = self._num_classes**2 if self._num_classes <= MOST_CLASSES else 0
        self._confusion = torch.zeros(cells, dtype=torch.long, device=device)

    @property
    def columns(self) -> int:
        """Outputs of the head."""
        return self._capture.layer.out_features

    @property
    def order(self) -> Tensor | None:
        """Where the samples of the last batch stood in what the step gave the network; ``None``: in their places."""
        return self._capture.order

    def read(self, samples: EvalBatch, batch: Any) -> Tensor:
        """``(B, C)`` logits of the samples of a batch, which have left the head; ``batch`` is as the step got it."""
        return self._capture.take(len(samples.labels), batch)

    def add(self, samples: EvalBatch, found: Tensor, answers: Tensor | None = None) -> None:
        """Count a batch. No device synchronisation.

        Args:
            samples: Of the batch.
            found: Their logits.
            answers: ``(B, C)`` scores that count instead of the head's, or ``(B,)`` classes that count in the
                class-incremental space, where they cannot be restricted to the classes seen.
        """
        logits = answers if answers is not None and answers.ndim == 2 else found
        labels, tasks = (t.to(logits.device, non_blocking=True) for t in (samples.labels, samples.tasks))
        chosen = best_of(logits, self._seen, labels) if answers is None or answers.ndim == 2 else answers
        for accuracy, predicted in zip(
            self._accuracies, (chosen.to(labels), task_il_predictions(logits, tasks, self._of_task)), strict=True
        ):
            accuracy.update(predicted, labels, tasks)
        if len(self._confusion):
            size, known = self._num_classes, (chosen >= 0) & (chosen < self._num_classes)
            cells = labels.long() * size + chosen.long().clamp(0, size - 1)
            self._confusion.scatter_add_(0, cells, known.long())

    def confusion(self, trainer: Trainer) -> Tensor | None:
        """``(C, C)`` int64 on the CPU: answers among the classes seen, a row for each true class, over all processes.

        ``None`` with more than :data:`MOST_CLASSES` classes.
        """
        if not len(self._confusion):
            return None
        reduced: Tensor = trainer.strategy.reduce(self._confusion, reduce_op="sum").cpu()
        return reduced.view(self._num_classes, self._num_classes)

    def finish(self, trainer: Trainer) -> Tensor:
        """``(2, 2, T)`` int64 on the CPU: label space, right answers or all samples, task; over all processes."""
        self._capture.stop()
        return summed(trainer, *self._accuracies)


def competitors(classes: Sequence[int], info: StreamInfo, columns: int, device: torch.device) -> Tensor:
    """Which columns of the head compete, bool: ``(columns,)``, those of ``classes``.

    Where samples have labels of several levels, ``(C, columns)``: for a sample of each class those of its own level.
    """
    seen, levels = class_table([classes], columns, device)[0], info.class_levels
    if len(set(levels)) <= 1:
        return seen
    level = torch.tensor(levels, device=device)
    same = nn.functional.pad(level[:, None] == level, (0, columns - len(levels)))
    return same & seen


def best_of(logits: Tensor, competing: Tensor, labels: Tensor) -> Tensor:
    """``(B,)`` the best of the :func:`competitors` for samples of these ``(B,)`` labels."""
    return class_il_predictions(logits, competing if competing.ndim == 1 else competing[labels])


class SetCounts:
    """Counts right answers among the exposed classes, by task and by class, for one or more sets of samples.

    Args:
        sets: ``(N_split,)`` bool masks on the CPU, each a set of samples to count.
        classes: Exposed classes; only these compete.
        info: Of the stream, with ``T`` tasks and ``C`` classes.
        columns: Outputs of the head.
        device: Of the logits.
    """

    def __init__(
        self, sets: Sequence[Tensor], classes: Sequence[int], info: StreamInfo, columns: int, device: torch.device
    ) -> None:
        self._sets, self._num_tasks = sets, info.num_tasks
        self._allowed = competitors(classes, info, columns, device)
        #: One for each set, with ``T + C`` groups.
        self.accuracies = [GroupAccuracy(info.num_tasks + info.num_classes).to(device) for _ in sets]

    def add(self, logits: Tensor, samples: EvalBatch) -> None:
        """Count ``(B, C_head)`` logits of ``samples``. No device synchronisation."""
        answers = best_of(logits, self._allowed, samples.labels.to(logits.device, non_blocking=True))
        for accuracy, chosen in zip(self.accuracies, self._sets, strict=True):
            rows = chosen[samples.index].nonzero().flatten()
            labels, groups = samples.labels[rows], samples.tasks[rows]
            moved = torch.stack([labels, groups, rows]).to(logits.device, non_blocking=True)
            accuracy.update(
                answers[moved[2]].repeat(2), moved[0].repeat(2), torch.cat([moved[1], moved[0] + self._num_tasks])
            )


def summed(trainer: Trainer, *accuracies: GroupAccuracy) -> Tensor:
    """``(A, 2, G)`` int64 on the CPU: the right answers and all samples of ``A`` accuracies, over all processes."""
    counts = torch.stack([torch.stack([accuracy.correct, accuracy.total]) for accuracy in accuracies])
    reduced: Tensor = trainer.strategy.reduce(counts, reduce_op="sum").cpu()
    return reduced


def grown(counts: Tensor, tasks: int, value: float = 0) -> Tensor:
    """``(T,)`` or ``(T, T)`` counts of a shorter stream in ``tasks`` rows (and columns); new cells have the value."""
    missing = max(tasks - len(counts), 0)
    return nn.functional.pad(counts, (0, missing) * counts.ndim, value=value)
