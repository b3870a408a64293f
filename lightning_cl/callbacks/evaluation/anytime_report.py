"""Log an evaluation inside a run, and report all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_cl.callbacks.evaluation import stream_logging
from lightning_cl.callbacks.evaluation.run_description import describe_run, validation_sizes
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.reports import AnytimeCurve, ContinualReport


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


def describe_evaluations(stream: ContinualDataModule, options: Mapping[str, Any], chosen: int) -> dict[str, Any]:
    """How the evaluations were made, as plain values.

    Args:
        stream: The stream.
        options: Arguments of :class:`~lightning_cl.callbacks.AnytimeEvaluation`.
        chosen: Number of validation samples that the evaluations may use.
    """
    return {
        "every_n_samples": options["every_n_samples"],
        "counted_in": "training samples over all processes; repeated updates on a batch do not count",
        "updates_per_batch": stream.updates_per_batch,
        "batch_size": stream.batch_size,
        "online": stream.online,
        "exposed_classes": "a class is exposed from the batch that holds its first training sample on"
        if stream.online
        else "a class is exposed from the start of the first task that holds it on",
        "evaluated": "all validation samples of exposed classes in tasks that have begun"
        if options["subset"] is None
        else f"of {chosen} fixed validation samples those of exposed classes in begun tasks",
        "subset": options["subset"],
        "windows": list(options["windows"]),
        "windows_counted_in": "evaluations, periodic ones and task ends",
        "prequential": options["prequential"],
    }


def report_of(
    curve: AnytimeCurve,
    section: dict[str, Any],
    trainer: Trainer,
    pl_module: LightningModule,
    stream: ContinualDataModule,
    note: str | None = None,
) -> ContinualReport:
    """A report of a curve alone; ``section``: what it says, see :meth:`AnytimeCurve.section`."""
    ends = curve.task_ends
    return ContinualReport(
        class_il=curve.after_correct.double() / curve.after_total.double(),
        sizes=validation_sizes(stream),
        evaluated=curve.after_total,
        samples_seen=[end - start for start, end in zip([0, *ends], ends, strict=False)],
        anytime=section,
        **describe_run(trainer, pl_module, stream, note),
    )
