"""Measure a metric of every task after every task, in the validation that the Trainer makes anyway."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.evaluation import stream_logging
from lightning_cl.callbacks.evaluation.anytime_evaluation import AnytimeEvaluation
from lightning_cl.callbacks.evaluation.run_description import (
    RunReporter,
    check_baseline,
    check_validation,
    describe_run,
    validation_sizes,
)
from lightning_cl.callbacks.evaluation.task_counts import grown
from lightning_cl.callbacks.evaluation.task_metrics import TaskMetrics
from lightning_cl.datamodules import ContinualDataModule, Task
from lightning_cl.datamodules.stream_plan import Stage
from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.metrics.functional.any_metric import metric_definitions, summarise_metric
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.reports import ContinualReport
from lightning_cl.reports.units import Unit

#: In longer streams the values of single tasks are in the report only: logging them would cost more than training.
MOST_TASKS_LOGGED = 100


def direction_of(metric: Any, stated: bool | None, key: str | None) -> bool:
    """Whether higher values of a metric are better, by what was stated or by the metric's own ``higher_is_better``.

    Args:
        metric: ``None``: the accuracy.
        stated: What the user said.
        key: Which of the metric's values counts.

    Raises:
        ValueError: If it is no metric, or nobody says.
    """
    if metric is None:
        if stated is not None or key is not None:
            raise ValueError("`metric_key` and `higher_is_better` say something of a metric; give it as `metric`.")
        return True
    if not isinstance(metric, Metric):
        hint = "; its class was given, so call it" if isinstance(metric, type) else ""
        raise ValueError(
            f"`metric` is {metric.__name__ if isinstance(metric, type) else type(metric).__name__}; expected a "
            f"torchmetrics metric, such as `MeanSquaredError()`{hint}."
        )
    known = metric.higher_is_better if stated is None else stated
    if known is None:
        raise ValueError(
            f"{type(metric).__name__} does not say whether higher values are better; pass `higher_is_better=True` or "
            "`False`."
        )
    return bool(known)


class MetricEvaluation(RunReporter):
    """Base of :class:`ContinualEvaluation`: life cycle, logging and report of a matrix, here of any metric.

    Attributes:
        values: ``(T, T)`` float64 metric, row "after task", column "on task"; NaN: not measured.
        total: ``(T, T)`` int64 samples that were measured.
        baseline: ``(T,)`` values before any training; ``None``: not measured.
        samples_seen: Training samples of each task so far.
    """

    head: str | None
    forward_transfer: bool
    metric: Metric | None
    metric_key: str | None
    higher_is_better: bool
    _stated: Any
    _metrics: TaskMetrics

    def __init__(self) -> None:
        self.values: Tensor = torch.empty(0, 0, dtype=torch.float64)
        self.total: Tensor = torch.empty(0)
        self.baseline: Tensor | None = None
        self.samples_seen: list[int] = []

    @property
    def metric_name(self) -> str | None:
        """What the metric is called in logs and reports; ``None``: the accuracy."""
        key = "" if self.metric_key is None else f"_{self.metric_key}"
        return None if self.metric is None else type(self.metric).__name__ + key

    @property
    def after_task_names(self) -> tuple[str, ...]:
        """Names of what is logged after every task."""
        names = (n for n in metric_definitions(self.higher_is_better) if n != "forward_transfer")
        return tuple(f"{self.metric_name}/{name}" for name in names)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that every boundary will be validated."""
        stream = require_stream(trainer, type(self).__name__)
        self.begin(trainer, stream, stage)
        assert self.metric is not None
        tasks = stream.info.num_tasks
        if stage == "fit" or not len(self.values):
            self.values = torch.full((tasks, tasks), torch.nan, dtype=torch.float64)
        self._metrics = TaskMetrics(pl_module, stream.info, self.metric, self.metric_key, self.head, self._stated)

    def begin(self, trainer: Trainer, stream: ContinualDataModule, stage: str) -> None:
        """Check the validation, and start with an empty matrix in a fit."""
        if stage == "fit":
            check_validation(trainer, stream, type(self).__name__)
            if self.forward_transfer:
                check_baseline(trainer, stream)
        if stage == "fit" or not len(self.total):
            tasks = stream.info.num_tasks
            self.total = torch.zeros(tasks, tasks, dtype=torch.long)
            self.baseline, self.samples_seen = None, [0] * tasks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the loggers what stream this is."""
        if trainer.is_global_zero:
            stream_logging.begin(trainer, require_stream(trainer, type(self).__name__), self.after_task_names)

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
            self.log_axis(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report and print the table."""
        self._publish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what is known when the run is interrupted."""
        if trainer.state.fn != "fit" or not len(self.total) or not int(self.total.sum()):
            return
        if len(self.total) == require_stream(trainer, type(self).__name__).info.num_tasks:  # else of an earlier run
            self._publish(trainer, pl_module, note=f"the run was interrupted ({type(exception).__name__})")

    def compared_classes(self, trainer: Trainer, stream: ContinualDataModule) -> Any:
        """Classes that compete in the evaluation that begins."""
        untrained = stream.evaluate_on == "all" and trainer.sanity_checking
        return range(stream.info.num_classes) if untrained else stream.exposed_classes

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        stream = require_stream(trainer, type(self).__name__)
        self._metrics.start(self.compared_classes(trainer, stream), pl_module.device, trainer.world_size)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count a batch."""
        stream, stage = require_stream(trainer, type(self).__name__), stage_of(trainer)
        self._metrics.add(batch, outputs, stream.eval_batch(batch_idx, stage), stream.batch_keys)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        self.on_validation_batch_end(*args, **kwargs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the processes, fill the row of the current task, and log."""
        stream, (values, totals) = require_stream(trainer, type(self).__name__), self._metrics.finish()
        if trainer.sanity_checking:
            self.baseline = values if self.forward_transfer else None
            return
        stage = stream.task_index
        self.values[stage], self.total[stage] = values, totals
        self.tell(trainer, pl_module, stream, self.log_row(pl_module, stream))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean over the tasks."""
        values, totals = self._metrics.finish()
        mean = values[totals > 0].mean().float()
        pl_module.log(f"test/{self.metric_name}/average_value", mean, batch_size=1)

    def tell(
        self, trainer: Trainer, pl_module: LightningModule, stream: ContinualDataModule, values: dict[str, float]
    ) -> None:
        """Tell the loggers what is known after a task."""
        if stream.task_ended and trainer.state.fn == "fit" and trainer.is_global_zero:
            matrix, stage = self.matrix(), stream.task_index
            means = accuracy_per_stage(matrix, sizes=validation_sizes(stream) > 0)
            unit = Unit(self.metric_name, self.higher_is_better)
            stream_logging.task_ended(trainer, stage, sum(self.samples_seen), values, matrix, means, unit)

    def matrix(self, space: str = "class_il") -> Tensor:
        """``(T, T)`` float64 values, row "after task", column "on task"; NaN: not measured."""
        return self.values

    def log_axis(self, pl_module: LightningModule) -> None:
        """Log how many training samples were seen."""
        pl_module.log(stream_logging.SAMPLES, float(sum(self.samples_seen)), batch_size=1)

    def summary(self, stream: ContinualDataModule) -> dict[str, float | None]:
        """What is logged after a validation, by name."""
        k = stream.task_index + 1
        values = summarise_metric(self.values[:k, :k], self.higher_is_better, validation_sizes(stream)[:k])
        return {f"{self.metric_name}/{name}": value for name, value in values.items()}

    def log_row(self, pl_module: LightningModule, stream: ContinualDataModule) -> dict[str, float]:
        """Log what this validation says; the summary."""
        summary = {name: value for name, value in self.summary(stream).items() if value is not None}
        logged = dict(summary)
        if stream.info.num_tasks <= MOST_TASKS_LOGGED:
            row: list[float] = self.matrix()[stream.task_index].tolist()
            space = self.metric_name or "class_il"
            logged |= {f"{space}/task_{t}": value for t, value in enumerate(row) if not math.isnan(value)}
        pl_module.log_dict(logged | self.logged_beside(stream), batch_size=1)
        self.log_axis(pl_module)
        return summary

    def logged_beside(self, stream: ContinualDataModule) -> dict[str, float]:
        """What else is logged after a validation."""
        return {}

    def notes(self) -> list[str]:
        """What a reader of the values must know of where they were read."""
        return []

    def measured(self) -> dict[str, Any]:
        """What the report holds of the matrix, as fields of :class:`~lightning_cl.reports.ContinualReport`."""
        return {"class_il": self.values, "metric": self.metric_name, "higher_is_better": self.higher_is_better}

    def build_report(self, trainer: Trainer, pl_module: LightningModule, note: str | None = None) -> ContinualReport:
        """What was measured so far and what is needed to judge it."""
        stream = require_stream(trainer, type(self).__name__)
        described = describe_run(trainer, pl_module, stream, note)
        described["notes"] += self.notes()
        anytime = (c for c in trainer.callbacks if isinstance(c, AnytimeEvaluation) and c.report)  # type: ignore[attr-defined]
        return ContinualReport(
            **self.measured(),
            baseline=self.baseline,
            sizes=validation_sizes(stream),
            evaluated=self.total,
            samples_seen=list(self.samples_seen),
            anytime=next((c.section(stream) for c in anytime), None),
            **described,
        )

    def _publish(self, trainer: Trainer, pl_module: LightningModule, note: str | None = None) -> None:
        if not trainer.is_global_zero:
            return
        report = self.build_report(trainer, pl_module, note)
        files = self.publish(trainer, report)
        if trainer.state.fn == "fit":
            stream_logging.finished(trainer, report, files)

    def state_dict(self) -> dict[str, Any]:
        """What was measured, the same on all processes."""
        shared = {"version": 1, "total": self.total, "baseline": self.baseline, "samples_seen": self.samples_seen}
        return shared | {"values": self.values, "metric": self.metric_name}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a matrix.

        Raises:
            ValueError: If it is of another metric.
        """
        then = state_dict.get("metric")
        if then != self.metric_name:
            raise ValueError(
                f"the checkpoint's matrix is of {then or 'the accuracy'}, but this ContinualEvaluation measures "
                f"{self.metric_name or 'the accuracy'}; use the metric that the run began with."
            )
        tasks = len(self.total)  # more than saved when the stream was extended
        if "values" in state_dict:
            self.values = grown(state_dict["values"].cpu(), tasks, float("nan"))
        self.total, baseline = grown(state_dict["total"].cpu(), tasks), state_dict["baseline"]
        self.baseline = None if baseline is None else grown(baseline, tasks, float("nan"))
        self.samples_seen = grown(torch.tensor(state_dict["samples_seen"], dtype=torch.long), tasks).tolist()


def stage_of(trainer: Trainer) -> Stage:
    """The evaluation stage that the Trainer is in."""
    return "test" if trainer.testing else "val"
