"""What evaluations at any time say: each of them to the loggers, and all of them in a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_cl.callbacks.evaluation import stream_logging
from lightning_cl.callbacks.evaluation.run_description import describe_run, validation_sizes
from lightning_cl.callbacks.run_folder import run_folder
from lightning_cl.datamodules.binding import callbacks_of
from lightning_cl.reports import AnytimeCurve, ContinualReport
from lightning_cl.reports.report import report_files

if TYPE_CHECKING:
    from lightning_cl.callbacks.evaluation.anytime_evaluation import AnytimeEvaluation
    from lightning_cl.datamodules import ContinualDataModule


def accompanied(trainer: Trainer, reporting: bool = False) -> bool:
    """Whether :class:`ContinualEvaluation` is there (and writes the report), which tells the loggers everything."""
    from lightning_cl.callbacks.evaluation.continual_evaluation import ContinualEvaluation

    return any(isinstance(c, ContinualEvaluation) and (c.report or not reporting) for c in callbacks_of(trainer))


def log_evaluation(trainer: Trainer, curve: AnytimeCurve, prequential: bool) -> None:
    """The last evaluation of a curve, to all loggers at once: the module's own `log` waits for every n-th step."""
    values = {
        "anytime/accuracy": float(curve.accuracy[-1]),
        "anytime/a_auc": float(curve.a_auc()),
        "anytime/samples_seen": float(curve.samples_seen[-1]),
        "anytime/exposed_classes": float(curve.exposed[-1]),
    }
    if prequential:
        values["anytime/prequential_accuracy"] = float(curve.prequential[-1])
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
    with_axis = {**values, stream_logging.SAMPLES: values["anytime/samples_seen"]}
    for logger in trainer.loggers:
        logger.log_metrics(with_axis, step=stream_logging.step_of(trainer))


def metadata(evaluation: AnytimeEvaluation, stream: ContinualDataModule, chosen: int) -> dict[str, Any]:
    """How it was measured, as plain values.

    Args:
        evaluation: The callback.
        stream: Its stream.
        chosen: Number of validation samples that the evaluations may use.
    """
    return {
        "every_n_samples": evaluation.every_n_samples,
        "counted_in": "training samples over all processes; repeated updates on a batch do not count",
        "updates_per_batch": stream.updates_per_batch,
        "batch_size": stream.batch_size,
        "online": stream.online,
        "exposed_classes": "a class is exposed from the batch that holds its first training sample on"
        if stream.online
        else "a class is exposed from the start of the first task that holds it on",
        "evaluated": "all validation samples of exposed classes in tasks that have begun"
        if evaluation.subset is None
        else f"of {chosen} fixed validation samples those of exposed classes in begun tasks",
        "subset": evaluation.subset,
        "windows": list(evaluation.windows),
        "windows_counted_in": "evaluations, periodic ones and task ends",
        "prequential": evaluation.prequential,
    }


def report_of(
    evaluation: AnytimeEvaluation,
    trainer: Trainer,
    pl_module: LightningModule,
    stream: ContinualDataModule,
    note: str | None = None,
) -> ContinualReport:
    """A report of these evaluations alone."""
    curve = evaluation.curve
    ends = curve.task_ends
    return ContinualReport(
        class_il=curve.after_correct.double() / curve.after_total.double(),
        sizes=validation_sizes(stream),
        evaluated=curve.after_total,
        samples_seen=[end - start for start, end in zip([0, *ends], ends, strict=False)],
        anytime=evaluation.section(stream),
        **describe_run(trainer, pl_module, stream, note),
    )


def publish(trainer: Trainer, report: ContinualReport) -> None:
    """Write a report with its curve and pictures, and tell the loggers unless another callback does."""
    path = report.write(run_folder(trainer))
    print(f"Report, curve and pictures: {path.parent}")
    if not accompanied(trainer):
        stream_logging.finished(trainer, report, report_files(path.parent))
