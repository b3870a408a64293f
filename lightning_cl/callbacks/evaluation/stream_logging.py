"""Log a stream as one run for all tasks, with axes, tables, pictures and files.

:class:`~lightning_cl.callbacks.ContinualEvaluation` calls these functions in the first process; a user adds nothing.
Every logger gets scalars and hyperparameters; W&B and TensorBoard also get what only they can show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.datamodules import ContinualDataModule, Task
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import Logger, TensorBoardLogger, Trainer, WandbLogger
from lightning_cl.reports import ContinualReport
from lightning_cl.reports.files import jsonable
from lightning_cl.reports.plots import matrix_image
from lightning_cl.reports.protocol import ProtocolCard
from lightning_cl.reports.units import ACCURACY, Unit

TASK, SAMPLES = "stream/task", "stream/samples_seen"
AFTER_TASK, MATRIX = "after_task", "after_task/accuracy_matrix"
#: Pictures and tables of the matrix in a whole stream; a long one shows every so many tasks.
MOST_MATRICES = 20
MOST_COLUMNS = 100  # tasks; the table of a longer stream is in the report only


def begin(trainer: Trainer, stream: ContinualDataModule, after_task: Iterable[str] = ()) -> None:
    """Define the axes, and tell the run's configuration what stream and methods it is about.

    Args:
        trainer: The Trainer.
        stream: The stream.
        after_task: Names of all values that :func:`task_ended` will be given.
    """
    methods = {type(c).__name__: c.config() for c in callbacks_of(trainer) if isinstance(c, ContinualMethod)}
    facts = {"stream": describe_stream(stream), "methods": jsonable(methods)}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            _define_axes(logger, after_task)
        # TensorBoard's would be replaced by ours alone
        known = dict(logger.hparams) if isinstance(logger, TensorBoardLogger) else {}
        logger.log_hyperparams({**known, **facts})


def task_started(trainer: Trainer, task: Task, samples_seen: int) -> None:
    """Mark a boundary: which task begins, and how many classes there are from here on."""
    values = {TASK: task.index, SAMPLES: samples_seen, "stream/seen_classes": len(task.seen_classes)}
    for logger in trainer.loggers:
        logger.log_metrics({name: float(value) for name, value in values.items()}, step=step_of(trainer))


def task_ended(
    trainer: Trainer,
    task: int,
    samples_seen: int,
    values: Mapping[str, float],
    matrix: Tensor,
    means: Tensor,
    unit: Unit = ACCURACY,
) -> None:
    """Log what is known after a task, with the task as axis, and the accuracy matrix in short streams.

    Args:
        trainer: The Trainer.
        task: The task's index.
        samples_seen: Training samples up to its end.
        values: Metric to value.
        matrix: ``(T, T)`` accuracies so far.
        means: ``(T,)`` average accuracy after every task so far.
        unit: What the matrix holds, if not accuracies.
    """
    scalars = {TASK: float(task), SAMPLES: float(samples_seen), **{f"{AFTER_TASK}/{n}": v for n, v in values.items()}}
    shown = matrix_is_due(task, len(matrix))
    image = matrix_image(matrix, unit) if shown and any(_shows_images(logger) for logger in trainer.loggers) else None
    step = step_of(trainer)
    for logger in trainer.loggers:
        media: dict[str, Any] = {}
        if image is not None and isinstance(logger, WandbLogger):
            media = _wandb_media(matrix, means, image)
        elif image is not None and isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(MATRIX, image, step, dataformats="HWC")
        logger.log_metrics({**scalars, **media}, step=step)


def finished(trainer: Trainer, report: ContinualReport, files: list[Path]) -> None:
    """The final numbers, the protocol card and the files of the report, where a logger has a place for them."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            _wandb_report(logger, report, files)
        elif isinstance(logger, TensorBoardLogger):
            step = step_of(trainer)
            for name, value in report.metrics.items():
                if value is not None:
                    logger.experiment.add_scalar(f"final/{name}", value, step)
            for name, text in _texts(report).items():
                logger.experiment.add_text(name, text, step)
        logger.save()


def is_sampled(trainer: Trainer) -> bool:
    """Whether Lightning sends the metrics of this training step to the loggers."""
    return bool(trainer.loggers) and trainer._logger_connector.should_update_logs


def step_of(trainer: Trainer) -> int:
    """What Lightning itself calls the step of a training batch."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def matrix_is_due(task: int, num_tasks: int) -> bool:
    """After every task of a short stream; at most :data:`MOST_MATRICES` times, and always after the last one."""
    period = -(-num_tasks // MOST_MATRICES)
    return (num_tasks - 1 - task) % period == 0


def describe_stream(stream: ContinualDataModule) -> dict[str, Any]:
    """Plain values that say which stream it is; the classes of each task in streams of up to 100 tasks."""
    info = stream.info
    facts = {
        "hash": info.fingerprint,
        "num_tasks": info.num_tasks,
        "num_classes": info.num_classes,
        "source": type(stream.source).__name__,
        "scenario": type(stream.scenario).__name__,
        "order": stream.scenario.order,
        "batch_size": stream.batch_size,
        "seed": stream.seed,
    }
    if info.num_tasks <= MOST_COLUMNS:
        facts["classes_per_task"] = [list(classes) for classes in info.classes_per_task]
        facts["epochs_per_task"] = list(stream.schedule.epochs)
    return facts


def _texts(report: ContinualReport) -> dict[str, str]:
    """Markdown for TensorBoard."""
    texts = {"stream/hash": str(report.stream_hash), "stream/notes": "\n".join(f"- {note}" for note in report.notes)}
    methods = json.dumps(jsonable(report.methods), indent=2, ensure_ascii=False)
    texts["methods"] = "\n".join(f"    {line}" for line in methods.splitlines())
    if report.protocol is not None:
        checks = ProtocolCard.from_dict(report.protocol).checks
        texts["protocol"] = "\n".join(
            ["| check | result | remark |", "| --- | --- | --- |"]
            + [f"| {check.name} | {check.result} | {check.message} |" for check in checks]
        )
    return texts


def _shows_images(logger: Logger) -> bool:
    return isinstance(logger, (WandbLogger, TensorBoardLogger))


def _define_axes(logger: WandbLogger, after_task: Iterable[str]) -> None:
    """Tasks are the axis of what is known after a task, samples seen that of losses and all else."""
    own = logger._prefix
    prefix = f"{own}{logger.LOGGER_JOIN_CHAR}" if own else ""
    define = logger.experiment.define_metric
    for axis in (TASK, SAMPLES):
        define(prefix + axis)
    define(f"{prefix}*", step_metric=prefix + SAMPLES, step_sync=True)
    for name in (MATRIX, f"{MATRIX}_image", *(f"{AFTER_TASK}/{name}" for name in after_task)):
        define(prefix + name, step_metric=prefix + TASK, step_sync=True)  # by name: a name goes before the star


def _wandb_media(matrix: Tensor, means: Tensor, image: Any) -> dict[str, Any]:
    import wandb

    media: dict[str, Any] = {f"{MATRIX}_image": wandb.Image(image)}
    if len(matrix) <= MOST_COLUMNS:
        columns: list[Any] = ["after_task", *(f"task_{task}" for task in range(len(matrix))), "mean"]
        rows = [
            [stage, *(None if v != v else v for v in (*row, mean))]
            for stage, (row, mean) in enumerate(zip(matrix.tolist(), means.tolist(), strict=True))
        ]
        media[MATRIX] = wandb.Table(columns=columns, data=rows)
    return media


def _wandb_report(logger: WandbLogger, report: ContinualReport, files: list[Path]) -> None:
    import wandb

    run = logger.experiment
    run.summary.update({f"final/{name}": value for name, value in report.metrics.items() if value is not None})
    if report.anytime is not None:
        values = {f"final/anytime/{n}": v for n, v in report.anytime["metrics"].items() if v is not None}
        run.summary.update(values)
    run.summary["notes"] = list(report.notes)
    if report.protocol is not None:
        checks = ProtocolCard.from_dict(report.protocol).checks
        run.summary["protocol"] = {check.name: check.result for check in checks}
    if files:
        described = {"stream_hash": report.stream_hash, "metrics": jsonable(report.metrics)}
        artifact = wandb.Artifact(f"continual-report-{run.id}", type="continual-report", metadata=described)
        for file in files:
            artifact.add_file(str(file), name=file.name)
        run.log_artifact(artifact)
