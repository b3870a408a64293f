"""Measure the accuracy matrix and the continual-learning metrics in the validation of every task."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.evaluation import stream_logging
from lightning_cl.callbacks.evaluation.anytime_evaluation import AnytimeEvaluation
from lightning_cl.callbacks.evaluation.module_answers import (
    AnswerCheck,
    Answers,
    answer_function,
    checked_answers,
    refuse_regression,
    returned_answers,
    unread_answers,
)
from lightning_cl.callbacks.evaluation.run_description import (
    RunReporter,
    check_baseline,
    check_validation,
    describe_run,
    validation_sizes,
)
from lightning_cl.callbacks.evaluation.task_counts import SPACES, TaskCounts, grown
from lightning_cl.callbacks.label_kinds import check_single_label
from lightning_cl.datamodules import ContinualDataModule, Task
from lightning_cl.datamodules.stream_plan import Stage
from lightning_cl.metrics.functional import accuracy_per_stage, level_accuracy, summarise
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.reports import ContinualReport

#: In longer streams the accuracies of single tasks are in the report only: logging them would cost more than training.
MOST_TASKS_LOGGED = 100
#: Batches of each validation in which the module's own choices are compared with those of its head.
BATCHES_COMPARED = 4
_LOGGED = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer", "learning_accuracy")
_NAMES = tuple(f"{space}/{name}" for space in SPACES for name in _LOGGED)


class ContinualEvaluation(RunReporter):
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

    It prints a table at the end, and writes ``continual_report.json``, the matrix as CSV and pictures into the run's
    folder (the logger's folder of this run, or ``trainer.default_root_dir`` without a logger); up to 1,000 classes also
    the confusion matrix and the accuracy of each class.

    Of up to 1,000 classes with superclasses it also reports the accuracy at each level of the label tree, as
    ``level_0/level_accuracy`` and so on. In a stream with labels of several levels (``HLE``) only classes of a sample's
    own level compete.

    Args:
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        report: Write the report files (never with ``Trainer(fast_dev_run=...)``).
        print_table: Print the matrix and the summary at the end.
        forward_transfer: Also measure the untrained model, for forward transfer. Needs
            ``ContinualDataModule(evaluate_on="all")`` and ``Trainer(num_sanity_val_steps=-1)``.
        answers: A function of (module, batch, what the step returned), or its dotted path, that gives what the module
            answers, as ``preds`` do: ``(B, C)`` scores or ``(B,)`` classes. For modules that cannot return them.

    Raises:
        ValueError: If ``answers`` is no function. In ``setup``, when there is no stream or no head, or a task's end
            would not be validated.
    """

    state_key = "lightning_cl.ContinualEvaluation"

    def __init__(
        self,
        head: str | None = None,
        report: bool = True,
        print_table: bool = True,
        forward_transfer: bool = False,
        answers: Answers | str | None = None,
    ) -> None:
        self._stated = answer_function(answers)
        self.head, self.report, self.print_table, self.forward_transfer = head, report, print_table, forward_transfer
        #: Counts by label space, ``(T, T)`` int64: row "after task", column "on task".
        self.correct: dict[str, Tensor] = {}
        self.total: Tensor = torch.empty(0)
        self.baseline: Tensor | None = None
        self.samples_seen: list[int] = []
        self.confusion: Tensor | None = None  # ``(C, C)`` answers of the last validation, by true class
        #: ``(T, L)`` accuracy at each level of the label tree after each task; NaN: not measured.
        self.levels: Tensor = torch.empty(0, 0)
        self._counts: TaskCounts | None = None
        #: What the module's step answers beside what its head answers.
        self.answers = AnswerCheck()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the head and check that every boundary will be validated."""
        stream = require_stream(trainer, type(self).__name__)
        check_single_label(stream, type(self).__name__)
        tasks = stream.info.num_tasks
        if stage == "fit":
            check_validation(trainer, stream, type(self).__name__)
            if self.forward_transfer:
                check_baseline(trainer, stream)
        if stage == "fit" or not self.correct:
            self.correct = {space: torch.zeros(tasks, tasks, dtype=torch.long) for space in SPACES}
            self.total = torch.zeros(tasks, tasks, dtype=torch.long)
            self.baseline, self.samples_seen, self.confusion = None, [0] * tasks, None
            self.levels = torch.full((tasks, len(stream.info.levels)), torch.nan, dtype=torch.float64)
        self._counts, self.answers = TaskCounts(pl_module, stream.info, self.head), AnswerCheck()
        self.answers.stated = self._stated is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the loggers what stream this is."""
        if trainer.is_global_zero:
            stream = require_stream(trainer, type(self).__name__)
            stream_logging.begin(trainer, stream, _NAMES)

    def on_task_start(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        """Mark the boundary in the logs."""
        if trainer.is_global_zero:
            stream_logging.task_started(trainer, task, sum(self.samples_seen))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the global batch's samples."""
        stream = require_stream(trainer, type(self).__name__)
        self.samples_seen[stream.task_index] += stream.new_samples(batch_idx)
        if stream_logging.is_sampled(trainer):  # the axis of what the module logs
            self._log_axis(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report and print the table."""
        self._publish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what is known when the run is interrupted."""
        self.answers.end(pl_module)
        if trainer.state.fn != "fit" or not len(self.total) or not int(self.total.sum()):
            return
        if len(self.total) == require_stream(trainer, type(self).__name__).info.num_tasks:  # else of an earlier run
            self._publish(trainer, pl_module, note=f"the run was interrupted ({type(exception).__name__})")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        stream = require_stream(trainer, type(self).__name__)
        assert self._counts is not None
        untrained = stream.evaluate_on == "all" and trainer.sanity_checking
        self._counts.start(range(stream.info.num_classes) if untrained else stream.exposed_classes, pl_module.device)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Look at what the module chooses in a few batches."""
        if batch_idx < BATCHES_COMPARED and not trainer.sanity_checking:
            assert self._counts is not None
            self.answers.begin(pl_module, self._counts.columns)
        if batch_idx == 0:
            refuse_regression(batch, type(self).__name__)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count a batch."""
        stage: Stage = "test" if trainer.testing else "val"
        given = outputs if self._stated is None else self._stated(pl_module, batch, outputs)
        counted = self._count(trainer, given, batch_idx, stage)
        if stage == "val":
            self.answers.end(pl_module, counted)

    on_test_start = on_validation_start

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        self.on_validation_batch_end(*args, **kwargs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the processes, fill the row of the current task, and log."""
        assert self._counts is not None
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
        values = self._log(pl_module, stream)
        if stream.task_ended and trainer.state.fn == "fit" and trainer.is_global_zero:
            matrix = self.matrix()
            means = accuracy_per_stage(matrix, sizes=validation_sizes(stream) > 0)
            stream_logging.task_ended(trainer, stage, sum(self.samples_seen), values, matrix, means)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the accuracy over all tasks."""
        assert self._counts is not None
        for space, (correct, total) in zip(SPACES, self._counts.finish(trainer), strict=True):
            accuracy = correct[total > 0].double() / total[total > 0].double()
            pl_module.log(f"test/{space}/average_accuracy", accuracy.mean().float(), batch_size=1)

    def _count(self, trainer: Trainer, outputs: Any, batch_idx: int, stage: Stage) -> Tensor | None:
        """Count what was returned or stated, or else what the head answered; its logits, if these were counted."""
        assert self._counts is not None
        samples = require_stream(trainer, type(self).__name__).eval_batch(batch_idx, stage)
        read = returned_answers if self._stated is None else checked_answers
        answers = read(outputs, len(samples.labels), self._counts.columns)
        logits = self._counts.add(samples, answers)
        if answers is None:
            self.answers.unread = self.answers.unread or unread_answers(outputs)
            return logits
        self.answers.read += len(answers)
        return None

    def notes(self) -> list[str]:
        """What a reader of the accuracies must know of where they were read."""
        return [self.answers.message] if self.answers.message else []

    def matrix(self, space: str = "class_il") -> Tensor:
        """``(T, T)`` float64 accuracies in [0, 1] of ``"class_il"`` or ``"task_il"``; NaN: not measured."""
        return self.correct[space].double() / self.total.double()

    def _log_axis(self, pl_module: LightningModule) -> None:
        pl_module.log(stream_logging.SAMPLES, float(sum(self.samples_seen)), batch_size=1)

    def _log(self, pl_module: LightningModule, stream: ContinualDataModule) -> dict[str, float]:
        """Log what this validation says; the summary."""
        stage = stream.task_index
        class_il, task_il = (self.matrix(space)[: stage + 1, : stage + 1] for space in SPACES)
        values = summarise(class_il, task_il, validation_sizes(stream)[: stage + 1], names=_LOGGED)
        summary = {name: value for name in _NAMES if (value := values[name]) is not None}
        logged = dict(summary)
        if stream.info.num_tasks <= MOST_TASKS_LOGGED:
            row: list[float] = self.matrix()[stage].tolist()
            logged |= {f"class_il/task_{t}": value for t, value in enumerate(row) if not math.isnan(value)}
        levels: list[float] = self.levels[stage].tolist()
        logged |= {f"level_{n}/level_accuracy": value for n, value in enumerate(levels) if not math.isnan(value)}
        pl_module.log_dict(logged, batch_size=1)
        self._log_axis(pl_module)
        return summary

    def build_report(self, trainer: Trainer, pl_module: LightningModule, note: str | None = None) -> ContinualReport:
        """What was measured so far and what is needed to judge it."""
        stream = require_stream(trainer, type(self).__name__)
        described = describe_run(trainer, pl_module, stream, note)
        described["notes"] += self.notes()
        anytime = (c for c in trainer.callbacks if isinstance(c, AnytimeEvaluation) and c.report)  # type: ignore[attr-defined]
        return ContinualReport(
            class_il=self.matrix("class_il"),
            task_il=self.matrix("task_il"),
            baseline=self.baseline,
            sizes=validation_sizes(stream),
            evaluated=self.total,
            confusion=self.confusion,
            levels=None if self.levels.isnan().all() else self.levels,
            samples_seen=list(self.samples_seen),
            anytime=next((c.section(stream) for c in anytime), None),
            **described,
        )

    def _publish(self, trainer: Trainer, pl_module: LightningModule, note: str | None = None) -> None:
        if trainer.is_global_zero:
            files = self.publish(trainer, report := self.build_report(trainer, pl_module, note))
            if trainer.state.fn == "fit":
                stream_logging.finished(trainer, report, files)

    def state_dict(self) -> dict[str, Any]:
        """Counts, already summed over the processes."""
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
        tasks = len(self.total)  # more than saved when the stream was extended
        self.correct = {space: grown(counts.cpu(), tasks) for space, counts in state_dict["correct"].items()}
        self.total, baseline = grown(state_dict["total"].cpu(), tasks), state_dict["baseline"]
        self.baseline = None if baseline is None else grown(baseline, tasks, float("nan"))
        self.samples_seen = grown(torch.tensor(state_dict["samples_seen"], dtype=torch.long), tasks).tolist()
        if len(levels := state_dict.get("levels", ())) == tasks:
            self.levels = levels.cpu()
