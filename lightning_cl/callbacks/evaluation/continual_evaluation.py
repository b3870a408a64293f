"""Measure the accuracy matrix and the continual-learning metrics in the validation of every task."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.evaluation.metric_evaluation import MetricEvaluation, direction_of, stage_of
from lightning_cl.callbacks.evaluation.module_answers import (
    AnswerCheck,
    Answers,
    answer_function,
    checked_answers,
    refuse_regression,
    returned_answers,
    unread_answers,
)
from lightning_cl.callbacks.evaluation.run_description import Written, check_written, validation_sizes
from lightning_cl.callbacks.evaluation.task_counts import SPACES, TaskCounts, grown
from lightning_cl.callbacks.label_kinds import check_single_label
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.stream_plan import Stage
from lightning_cl.metrics.functional import level_accuracy, summarise
from lightning_cl.namespace import LightningModule, Trainer

#: Batches of each validation in which the module's own choices are compared with those of its head.
BATCHES_COMPARED = 4
_LOGGED = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer", "learning_accuracy")
_NAMES = tuple(f"{space}/{name}" for space in SPACES for name in _LOGGED)


class ContinualEvaluation(MetricEvaluation):
    """Measures every task after every task, in the validation that the Trainer makes anyway.

    The logits that the module's ``validation_step`` computes are read where they leave the head, so no pass is made
    twice. A step that answers after the head (adjusted logits, an average over crops or heads) returns its answers as
    ``{"preds": scores or classes}``, which are counted instead; where it does not and chooses other classes than its
    head, the report says so. Class-incremental accuracy (all classes seen so far compete) and task-incremental accuracy
    (the classes of a sample's own task compete) come from the same logits. Counts are summed over processes; padding
    never counts.

    It logs ``class_il/average_accuracy`` and the like to any logger, and ``class_il/task_0`` and so on in streams of
    up to 100 tasks; after tasks ``after_task/class_il/average_accuracy`` and the like, with ``stream/task`` as axis;
    all else has the axis ``stream/samples_seen``. W&B and TensorBoard also get the matrix, the final numbers and the
    protocol card, and W&B the report's files as an artifact; with ``WandbLogger(id="...")`` a resumed run goes on in
    the same W&B run.

    With ``metric=`` the matrix holds any torchmetrics metric instead (F1, mean squared error, perplexity, mean average
    precision, intersection over union), also on streams without classes. It is given what ``answers`` gives, a pair
    (preds, target); else what the step returns as ``{"preds": ..., "target": ...}``; else the head's logits and the
    labels, where targets are class ids; else what ``forward`` answered and the batch's targets. Forgetting, transfer
    and pictures go by its direction, and names are ``MeanSquaredError/average_value`` and the like.

    It prints a table at the end, and writes ``continual_report.json``, the matrix as CSV and pictures into the run's
    folder (the logger's folder of this run, or ``trainer.default_root_dir`` without a logger); up to 1,000 classes also
    the confusion matrix and the accuracy of each class.

    Of up to 1,000 classes with superclasses it also reports the accuracy at each level of the label tree, as
    ``level_0/level_accuracy`` and so on. In a stream with labels of several levels (``HLE``) only classes of a sample's
    own level compete.

    Args:
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        report: Write the report files (never with ``Trainer(fast_dev_run=...)``); ``"numbers"``: without pictures,
            which take a third of a short run.
        print_table: Print the matrix and the summary at the end.
        forward_transfer: Also measure the untrained model, for forward transfer. Needs
            ``ContinualDataModule(evaluate_on="all")`` and ``Trainer(num_sanity_val_steps=-1)``.
        answers: A function of (module, batch, what the step returned), or its dotted path, that gives what the module
            answers, as ``preds`` do: ``(B, C)`` scores or ``(B,)`` classes. For modules that cannot return them. With a
            ``metric`` a pair (preds, target), as its ``update`` takes them.
        metric: A torchmetrics metric; ``None``: the accuracy.
        metric_key: Which value of a metric that gives several; ``None``: the first (the mean average precision's is
            ``"map"``).
        higher_is_better: Direction of the metric; ``None``: as it says itself.

    Raises:
        ValueError: If ``report`` is none of these, ``answers`` no function, ``metric`` no metric, or its direction not
            known. In ``setup``, when there is no stream or no head, or a task's end would not be validated.
    """

    state_key = "lightning_cl.ContinualEvaluation"

    def __init__(
        self,
        head: str | None = None,
        report: Written = True,
        print_table: bool = True,
        forward_transfer: bool = False,
        answers: Answers | str | None = None,
        metric: Metric | None = None,
        metric_key: str | None = None,
        higher_is_better: bool | None = None,
    ) -> None:
        super().__init__()
        self._stated = answer_function(answers)
        self.report = check_written(report)
        self.head, self.print_table, self.forward_transfer = head, print_table, forward_transfer
        self.higher_is_better = direction_of(metric, higher_is_better, metric_key)
        self.metric, self.metric_key = metric, metric_key
        #: Counts by label space, ``(T, T)`` int64: row "after task", column "on task".
        self.correct: dict[str, Tensor] = {}
        #: ``(C, C)`` answers of the last validation, by true class.
        self.confusion: Tensor | None = None
        #: ``(T, L)`` accuracy at each level of the label tree after each task; NaN: not measured.
        self.levels: Tensor = torch.empty(0, 0)
        self._counts: TaskCounts | None = None
        #: What the module's step answers beside what its head answers.
        self.answers = AnswerCheck()

    @property
    def after_task_names(self) -> tuple[str, ...]:
        """Names of what is logged after every task."""
        return _NAMES if self.metric is None else super().after_task_names

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the head and check that every boundary will be validated."""
        if self.metric is not None:
            super().setup(trainer, pl_module, stage)
            return
        stream = require_stream(trainer, type(self).__name__)
        check_single_label(stream, type(self).__name__)
        tasks = stream.info.num_tasks
        self.begin(trainer, stream, stage)
        if stage == "fit" or not self.correct:
            self.correct = {space: torch.zeros(tasks, tasks, dtype=torch.long) for space in SPACES}
            self.confusion = None
            self.levels = torch.full((tasks, len(stream.info.levels)), torch.nan, dtype=torch.float64)
        self._counts, self.answers = TaskCounts(pl_module, stream.info, self.head), AnswerCheck()
        self.answers.stated = self._stated is not None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what is known when the run is interrupted."""
        self.answers.end(pl_module)
        super().on_exception(trainer, pl_module, exception)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        if self._counts is None:
            super().on_validation_start(trainer, pl_module)
            return
        stream = require_stream(trainer, type(self).__name__)
        self._counts.start(self.compared_classes(trainer, stream), pl_module.device)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Look at what the module chooses in a few batches."""
        if self._counts is None:
            return
        if batch_idx < BATCHES_COMPARED and not trainer.sanity_checking:
            self.answers.begin(pl_module, self._counts.columns)
        if batch_idx == 0:
            refuse_regression(batch, type(self).__name__)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count a batch."""
        if self._counts is None:
            super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            return
        stage = stage_of(trainer)
        given = outputs if self._stated is None else self._stated(pl_module, batch, outputs)
        counted = self._count(trainer, given, batch, batch_idx, stage)
        if stage == "val":
            self.answers.end(pl_module, counted, self._counts.order)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the processes, fill the row of the current task, and log."""
        if self._counts is None:
            super().on_validation_epoch_end(trainer, pl_module)
            return
        counts, stream = self._counts.finish(trainer), require_stream(trainer, type(self).__name__)
        if trainer.sanity_checking:
            if self.forward_transfer:
                self.baseline = counts[1, 0].double() / counts[1, 1].double()
            return
        stage, self.confusion = stream.task_index, self._counts.confusion(trainer)
        for space, (correct, self.total[stage]) in zip(SPACES, counts, strict=True):
            self.correct[space][stage] = correct
        if self.confusion is not None and stream.info.levels:
            self.levels[stage] = level_accuracy(self.confusion, stream.info.levels)
        self.tell(trainer, pl_module, stream, self.log_row(pl_module, stream))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the accuracy over all tasks."""
        if self._counts is None:
            super().on_test_epoch_end(trainer, pl_module)
            return
        for space, (correct, total) in zip(SPACES, self._counts.finish(trainer), strict=True):
            accuracy = correct[total > 0].double() / total[total > 0].double()
            pl_module.log(f"test/{space}/average_accuracy", accuracy.mean().float(), batch_size=1)

    def _count(self, trainer: Trainer, outputs: Any, batch: Any, batch_idx: int, stage: Stage) -> Tensor | None:
        """Count what was returned or stated, or else what the head answered; its logits, if these were counted."""
        assert self._counts is not None
        samples = require_stream(trainer, type(self).__name__).eval_batch(batch_idx, stage)
        logits, size = self._counts.read(samples, batch), (len(samples.labels), self._counts.columns)
        if self._stated is None:
            answers = returned_answers(outputs, *size, self._counts.order)
        else:
            answers = checked_answers(outputs, *size)
        self._counts.add(samples, logits, answers)
        if answers is None:
            self.answers.unread = self.answers.unread or unread_answers(outputs)
            return logits
        self.answers.read += len(answers)
        return None

    def notes(self) -> list[str]:
        """What a reader of the accuracies must know of where they were read."""
        return [self.answers.message] if self.answers.message else []

    def matrix(self, space: str = "class_il") -> Tensor:
        """``(T, T)`` float64 metric, or accuracies in [0, 1] of ``"class_il"`` or ``"task_il"``; NaN: not measured."""
        return self.values if self.metric is not None else self.correct[space].double() / self.total.double()

    def summary(self, stream: ContinualDataModule) -> dict[str, float | None]:
        """What is logged after a validation, by name."""
        if self.metric is not None:
            return super().summary(stream)
        stage = stream.task_index
        class_il, task_il = (self.matrix(space)[: stage + 1, : stage + 1] for space in SPACES)
        values = summarise(class_il, task_il, validation_sizes(stream)[: stage + 1], names=_LOGGED)
        return {name: values[name] for name in _NAMES}

    def logged_beside(self, stream: ContinualDataModule) -> dict[str, float]:
        """The accuracy at each level of the label tree."""
        levels: list[float] = [] if self.metric is not None else self.levels[stream.task_index].tolist()
        return {f"level_{n}/level_accuracy": value for n, value in enumerate(levels) if not math.isnan(value)}

    def measured(self) -> dict[str, Any]:
        """What the report holds of the matrix."""
        if self.metric is not None:
            return super().measured()
        levels = None if self.levels.isnan().all() else self.levels
        return {**{space: self.matrix(space) for space in SPACES}, "confusion": self.confusion, "levels": levels}

    def state_dict(self) -> dict[str, Any]:
        """Counts, already summed over the processes."""
        if self.metric is not None:
            return super().state_dict()
        return {
            "version": 1,
            "correct": self.correct,
            "total": self.total,
            "baseline": self.baseline,
            "samples_seen": self.samples_seen,
            "levels": self.levels,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a matrix."""
        super().load_state_dict(state_dict)
        tasks = len(self.total)
        self.correct = {s: grown(counts.cpu(), tasks) for s, counts in state_dict.get("correct", {}).items()}
        if len(levels := state_dict.get("levels", ())) == tasks:
            self.levels = levels.cpu()
