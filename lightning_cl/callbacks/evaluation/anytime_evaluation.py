"""Evaluate a model inside the fit, every so many training samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.callbacks.evaluation import stream_logging
from lightning_cl.callbacks.evaluation.anytime_counts import PrequentialCounter, next_evaluation, stratified_subset
from lightning_cl.callbacks.evaluation.anytime_report import describe_evaluations, log_evaluation, report_of
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.module_answers import refuse_regression
from lightning_cl.callbacks.evaluation.run_description import (
    RunReporter,
    Written,
    check_validation,
    check_written,
    write_report,
)
from lightning_cl.callbacks.evaluation.silent_evaluation import SilentEvaluation
from lightning_cl.callbacks.evaluation.task_counts import SetCounts, summed
from lightning_cl.callbacks.label_kinds import check_single_label
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.sampling import evaluation_order
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.reports import AnytimeCurve, ContinualReport

_LOGGED_AFTER_TASK = ("a_avg", "a_last", "f_last")


class AnytimeEvaluation(ContinualCallback):
    """Evaluates the model inside the fit, every ``every_n_samples`` training samples, on the classes exposed so far.

    An evaluation comes after the optimiser step of the last update on a batch, when the samples seen have reached the
    next multiple of the period; the true number is kept (with a period of 1000 and batches of 64 the first is at 1024).
    It runs the module's own ``validation_step`` in eval mode over the validation data whose class has been exposed and
    whose task has begun; only exposed classes compete. Training goes on as if there had been none: weights, random
    states, torchmetrics and logs are untouched. Counts are summed over the processes; padding never counts. What is
    known of frozen features is used. It works for every stream; where a task has several epochs, samples shown again
    count again.

    The values after each task (A_Avg, A_Last, F_Last) are read in the validation that the Trainer makes anyway. A_AUC
    is the mean of the periodic evaluations; those after a task are part of the other metrics only.

    It logs ``anytime/accuracy``, ``anytime/a_auc``, ``anytime/samples_seen`` and ``anytime/exposed_classes`` to any
    logger at the step of each evaluation, whatever ``log_every_n_steps`` is, and adds the section ``anytime``, the
    curve as CSV and a picture to the report of :class:`ContinualEvaluation` (without that callback it writes a report
    of its own).

    Args:
        every_n_samples: Period, in training samples over all processes; repeated updates on a batch do not count.
        subset: Evaluate on so many of the validation samples only, drawn once from the stream's seed, every class in
            proportion and at least once. Then an evaluation never costs more than that, however many tasks there
            were. The values after each task are over all samples all the same. ``None``: everything.
        prequential: Also count how often the training forward predicts a new batch rightly before it is learned, from
            its own logits and without another pass: with dropout, augmentation and whatever else a method does to
            training features. Only the first update on a batch counts, in the first epoch of a task; replayed rows
            and padding do not.
        windows: Of windowed forgetting and plasticity, in evaluations.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        report: Write the curve, its metrics and its picture (never with ``Trainer(fast_dev_run=...)``);
            ``"numbers"``: without the picture.

    Raises:
        ValueError: For a period below 1, a window below 2 or another ``report``; in ``setup``, when there is no stream,
            no ``validation_step`` or no head, a task's end would not be validated, or ``subset`` is smaller than the
            number of classes.
    """

    state_key = "lightning_cl.AnytimeEvaluation"

    def __init__(
        self,
        every_n_samples: int = 1000,
        subset: int | None = None,
        prequential: bool = False,
        windows: Sequence[int] = (10, 100),
        head: str | None = None,
        report: Written = True,
    ) -> None:
        if every_n_samples < 1:
            raise ValueError(f"`every_n_samples` is {every_n_samples}; give a period of at least 1 training sample.")
        if any(window < 2 for window in windows):
            raise ValueError(f"`windows` is {list(windows)} but a change needs two evaluations; give at least 2 each.")
        self.every_n_samples, self.subset, self.prequential = every_n_samples, subset, prequential
        self.windows, self.head, self.report = windows, head, check_written(report)
        #: All evaluations so far.
        self.curve = AnytimeCurve.empty(0, 0)
        self.samples_seen = 0
        self._due = every_n_samples
        self._ended = -1  # last task that ended
        self._online = (0, 0)  # predicted before training on them: right, all; over all processes
        self._chosen: Tensor = torch.empty(0, dtype=torch.bool)  # (N_split,) what the evaluations may use
        self._capture: HeadCapture | None = None
        self._counter: PrequentialCounter | None = None
        self._after: SetCounts | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the head, draw the subset, and check that every boundary will be validated."""
        stream = require_stream(trainer, type(self).__name__)
        check_single_label(stream, type(self).__name__)
        if stage != "fit":
            return
        self._capture = None  # until everything is checked
        check_validation(trainer, stream, type(self).__name__)
        data = stream.eval_data("anytime")
        index = torch.cat(list(data.index))
        if self.subset is not None:
            index = stratified_subset(data.labels, index, self.subset, stream.seed)
        self._chosen = torch.zeros(len(data.labels), dtype=torch.bool)
        self._chosen[index] = True
        self.curve = AnytimeCurve.empty(stream.info.num_tasks, stream.info.num_classes)
        self.samples_seen, self._due, self._ended, self._online = 0, self.every_n_samples, -1, (0, 0)
        self._capture = HeadCapture(pl_module, stream.info.num_classes, self.head)
        self._counter = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the loggers what stream this is, and start to count predictions of new batches, on the device."""
        if trainer.is_global_zero and not RunReporter.among(trainer):
            stream_logging.begin(trainer, require_stream(trainer, type(self).__name__))
        if self.prequential:
            assert self._capture is not None
            stream = require_stream(trainer, type(self).__name__)
            self._counter = PrequentialCounter(self._capture, pl_module.device, stream.info)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Read what the coming step predicts, if its samples are new; refuse what has no right answers."""
        stream = require_stream(trainer, type(self).__name__)
        if batch_idx == 0:
            refuse_regression(batch, type(self).__name__)
        if self._counter is not None and _never_seen(trainer, stream, batch_idx):
            self._counter.watch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's samples, and evaluate when it is time."""
        stream = require_stream(trainer, type(self).__name__)
        self.samples_seen += stream.new_samples(batch_idx)
        if self._counter is not None and _never_seen(trainer, stream, batch_idx):
            own = stream.train_batch(batch_idx)
            self._counter.count(stream.source.train_labels[own.index[: own.real]], stream.exposed_classes, batch)
        if self.samples_seen >= self._due and stream.is_last_update(batch_idx):
            self._due = next_evaluation(self.samples_seen, self._due, self.every_n_samples)
            counts = self._evaluate(trainer, pl_module, stream)
            self.curve.add(self.samples_seen, stream.task_index, len(stream.exposed_classes), counts, self._online)
            log_evaluation(trainer, self.curve, self.prequential)

    def on_task_end(self, trainer: Trainer, pl_module: LightningModule, task: Any) -> None:
        """Mark the validation that follows as the one after the task."""
        self._ended = task.index

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop reading the head's answers, and write what is known when the run is interrupted."""
        for reader in (self._counter, self._capture):
            if reader is not None:
                reader.stop()
        if trainer.state.fn == "fit" and self._capture is not None and len(self.curve):
            self._publish(trainer, pl_module, note=f"the run was interrupted ({type(exception).__name__})")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report."""
        if self._counter is not None:
            self._counter.stop()
        self._publish(trainer, pl_module)

    def evaluated_now(self, stream: ContinualDataModule) -> Tensor:
        """``(N_split,)`` bool: validation samples whose class has been exposed and whose task has begun."""
        data = stream.eval_data("anytime")
        exposed = torch.zeros(stream.info.num_classes, dtype=torch.bool)
        exposed[list(stream.exposed_classes)] = True
        return exposed[data.labels] & (data.task_of >= 0) & (data.task_of <= stream.task_index)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, stream: ContinualDataModule) -> Tensor:
        """``(2, T + C)`` counts over all processes, on the CPU."""
        assert self._capture is not None
        chosen = self._chosen & self.evaluated_now(stream)
        # In the order of the validation, so that full batches come again and what was remembered of them is used.
        order = evaluation_order(stream.eval_data("anytime").index, stream.seed)
        counts = self._counts([chosen], stream, pl_module.device)
        with SilentEvaluation(trainer, pl_module, self._capture) as evaluation:
            for batch_idx, batch in enumerate(stream.anytime_dataloader(order[chosen[order]])):
                samples = stream.eval_batch(batch_idx, "anytime")
                counts.add(evaluation.logits(batch, batch_idx, len(samples.labels), "anytime"), samples)
        self._sum_online(trainer)
        return summed(trainer, *counts.accuracies)[0]

    def _counts(self, sets: Sequence[Tensor], stream: ContinualDataModule, device: torch.device) -> SetCounts:
        assert self._capture is not None
        return SetCounts(sets, stream.exposed_classes, stream.info, self._capture.layer.out_features, device)

    def _sum_online(self, trainer: Trainer) -> None:
        """Add up what the processes predicted of new batches since the last time."""
        if self._counter is not None:
            right, count = trainer.strategy.reduce(self._counter.take(), reduce_op="sum").tolist()
            self._online = (self._online[0] + int(right), self._online[1] + int(count))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count, if a task is over: all samples, and those that the evaluations use."""
        stream = require_stream(trainer, type(self).__name__)
        if self._capture is None or trainer.sanity_checking or self._ended != stream.task_index:
            return
        if trainer.state.fn == "fit":
            now = self.evaluated_now(stream)
            self._after = self._counts([now, self._chosen & now], stream, pl_module.device)
            self._capture.start()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count a batch."""
        if self._after is not None:
            assert self._capture is not None
            samples = require_stream(trainer, type(self).__name__).eval_batch(batch_idx, "val")
            self._after.add(self._capture.take(len(samples.labels), batch), samples)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the processes, add the task's end to the curve, and log."""
        if self._after is None:
            return
        assert self._capture is not None
        self._capture.stop()
        stream, task = require_stream(trainer, type(self).__name__), self._ended
        self._sum_online(trainer)
        everything, chosen = summed(trainer, *self._after.accuracies)
        self._after = None
        self.curve.finish_task(task, everything)
        exposed = len(stream.exposed_classes)
        self.curve.add(self.samples_seen, task, exposed, chosen, self._online, task_end=True)
        values = self.curve.summary(self.windows)
        logged = {f"anytime/{name}": values[name] for name in _LOGGED_AFTER_TASK if values[name] is not None}
        pl_module.log_dict(logged, batch_size=1)  # type: ignore[arg-type]

    def section(self, stream: ContinualDataModule) -> dict[str, Any]:
        """The curve, its metrics and how it was measured, for a report."""
        described = describe_evaluations(stream, vars(self), int(self._chosen.sum()))
        return self.curve.section(described, self.windows)

    def build_report(self, trainer: Trainer, pl_module: LightningModule, note: str | None = None) -> ContinualReport:
        """A report of what was measured here alone; :class:`ContinualEvaluation` makes a fuller one."""
        stream = require_stream(trainer, type(self).__name__)
        return report_of(self.curve, self.section(stream), trainer, pl_module, stream, note)

    def _publish(self, trainer: Trainer, pl_module: LightningModule, note: str | None = None) -> None:
        wanted = self.report and trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if not wanted or RunReporter.among(trainer, writing=True):
            return
        report = self.build_report(trainer, pl_module, note)
        files = write_report(trainer, report, self.report, "Report, curve")
        if not RunReporter.among(trainer):
            stream_logging.finished(trainer, report, files)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Sum what every process counted since the last evaluation."""
        if self._counter is not None and self.state_key in checkpoint.get("callbacks", {}):
            self._sum_online(trainer)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """The curve and where the next evaluation is due; counts are sums over the processes."""
        return {
            "version": 1,
            "curve": self.curve.state_dict(),
            "samples_seen": self.samples_seen,
            "due": self._due,
            "ended": self._ended,
            "online": list(self._online),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a curve; the stream may have been extended since."""
        tasks, classes = self.curve.after_class_total.shape
        self.curve = AnytimeCurve.from_state_dict(state_dict["curve"]).extended(tasks, classes)
        self.samples_seen, self._due = int(state_dict["samples_seen"]), int(state_dict["due"])
        self._ended = int(state_dict["ended"])
        self._online = (int(state_dict["online"][0]), int(state_dict["online"][1]))


def _never_seen(trainer: Trainer, stream: ContinualDataModule, batch_idx: int) -> bool:
    """Whether a training batch holds samples that were not trained on before: its first update, in a first epoch."""
    return stream.new_samples(batch_idx) > 0 and trainer.current_epoch == stream.task.first_epoch
