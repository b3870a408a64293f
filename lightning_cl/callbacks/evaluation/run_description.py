"""Check the validation that a measurement needs, and describe a run for its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.base import ContinualCallback, ContinualMethod
from lightning_cl.callbacks.checkpoints.run_folder import run_folder
from lightning_cl.callbacks.evaluation.protocol_guard import ProtocolGuard
from lightning_cl.callbacks.evaluation.task_identity import TOLD, is_told
from lightning_cl.callbacks.stream_kind import told_boundaries
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.prompts import PromptProvider
from lightning_cl.reports import ContinualReport, ProtocolCard, rich_table
from lightning_cl.reports.report import report_files
from lightning_cl.reports.tables import print_table

#: Whether the files of a report are written; ``"numbers"``: all but the pictures.
Written = bool | Literal["numbers"]


def check_written(report: Written) -> Written:
    """Give ``report`` back.

    Raises:
        ValueError: If it is neither a truth value nor ``"numbers"``.
    """
    if report not in (True, False, "numbers"):
        raise ValueError(f'`report` is {report!r}; give True, False, or "numbers" for files without pictures.')
    return report


class RunReporter(ContinualCallback):
    """Base of callbacks whose report holds all that was measured in a run, and which tell it to the loggers."""

    #: Write the files of the report.
    report: Written
    #: Print the matrix and the summary at the end.
    print_table: bool = False

    def publish(self, trainer: Trainer, report: ContinualReport) -> list[Path]:
        """Print the table and write the files of a report, where that is wanted; the files."""
        if self.print_table:
            print_table(rich_table(report))
        if not self.report or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return []
        return write_report(trainer, report, self.report, "Report, matrix")

    @staticmethod
    def among(trainer: Trainer, writing: bool = False) -> bool:
        """Whether the Trainer has one (that writes files)."""
        return any(isinstance(c, RunReporter) and (c.report or not writing) for c in callbacks_of(trainer))


def check_validation(trainer: Trainer, stream: ContinualDataModule, who: str) -> None:
    """Check that every task end is validated.

    Raises:
        ValueError: If there is no validation, or not in the last epoch of every task.
    """
    if not trainer.enable_validation:
        raise ValueError(
            f"{who} reads the logits of the validation, but there is none; give the module a `validation_step` "
            "(calling the model is enough) and leave `limit_val_batches` above 0."
        )
    every = trainer.check_val_every_n_epoch
    missed = [t.index for t in stream.tasks if every and (t.last_epoch + 1) % every]
    if missed:
        lengths = ", ".join(map(str, sorted(set(stream.schedule.epochs))))
        raise ValueError(
            f"`check_val_every_n_epoch={every}` does not validate the last epoch of {len(missed)} task(s), task "
            f"{missed[0]} first, so what is measured there would be missing; use 1, or a divisor of the epochs per "
            f"task ({lengths})."
        )
    missed = _unvalidated_ends(trainer, stream)
    if missed:
        raise ValueError(
            f"`val_check_interval={_interval(trainer)}` does not validate the last batch of {len(missed)} "
            f"task(s), task {missed[0]} first, so what is measured of it would be of the middle of a task; set it to "
            "1.0, or to a number that divides the batches of every task."
        )


def _interval(trainer: Trainer) -> Any:
    return getattr(trainer, "val_check_interval", "<a time>")  # which Lightning keeps elsewhere


def _unvalidated_ends(trainer: Trainer, stream: ContinualDataModule) -> list[int]:
    """Tasks whose last batch is followed by no validation, for the Trainer validates by batches or by the clock."""
    interval = _interval(trainer)
    if interval == 1.0 and isinstance(interval, float):
        return []
    if not isinstance(interval, (int, float)):
        return list(range(stream.info.num_tasks))
    missed, done = [], 0
    for task in stream.tasks:
        batches = stream.num_batches(task.index)
        done += batches * task.epochs
        counted = done if trainer.check_val_every_n_epoch is None else batches
        if counted % (interval if isinstance(interval, int) else max(1, int(batches * interval))):
            missed.append(task.index)
    return missed


def check_baseline(trainer: Trainer, stream: ContinualDataModule) -> None:
    """Check that the untrained model is evaluated on all tasks.

    Raises:
        ValueError: If not.
    """
    if stream.evaluate_on != "all" or trainer.num_sanity_val_steps != float("inf"):
        raise ValueError(
            'forward transfer needs the untrained model on all tasks: set `ContinualDataModule(evaluate_on="all")` and '
            "`Trainer(num_sanity_val_steps=-1)`."
        )


def validation_sizes(stream: ContinualDataModule) -> Tensor:
    """``(T,)`` int64: validation samples of each task."""
    return torch.tensor([len(index) for index in stream.eval_data("val").index])


def describe_run(
    trainer: Trainer, pl_module: LightningModule, stream: ContinualDataModule, note: str | None = None
) -> dict[str, Any]:
    """Stream, methods, sizes, protocol card and notes, as fields of :class:`~lightning_cl.reports.ContinualReport`."""
    info, methods = stream.info, [c for c in callbacks_of(trainer) if isinstance(c, ContinualMethod)]
    told = [c for c in callbacks_of(trainer) if isinstance(c, ContinualCallback)]
    requests = sum(bool(asked) for asked in info.forgets_per_task)
    same_classes = info.num_tasks > 1 and len(set(info.classes_per_task)) == 1 and not requests
    card = next((c.card for c in callbacks_of(trainer) if isinstance(c, ProtocolGuard)), ProtocolCard())
    return {
        "label_space": "domain_il" if same_classes else "task_il" if is_told(stream, pl_module) else "class_il",
        "few_shot": stream.scenario.few_shot,
        "requests": requests,
        "unlabelled": list(info.unlabelled_tasks),
        "task_classes": [list(classes) for classes in info.classes_per_task],
        "class_names": list(info.class_names),
        "trainable_parameters": sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
        "total_parameters": sum(p.numel() for p in pl_module.parameters()),
        "stream_hash": info.fingerprint,
        "methods": {type(c).__name__: c.config() for c in methods},
        "facts": {type(c).__name__: facts for c in told if (facts := c.report_facts())},
        "notes": _notes(stream, pl_module, methods) + card.notes() + ([note] if note else []),
        "protocol": card.to_dict() if card.checks else None,
    }


def _notes(stream: ContinualDataModule, pl_module: nn.Module, methods: Sequence[ContinualMethod]) -> list[str]:
    held_out = "held-out training data" if stream.val_split else "the test split"
    notes = [f"the matrix was measured on {held_out}", *stream.scenario.remarks]
    if is_told(stream, pl_module):
        notes.append(TOLD)
    if names := told_boundaries(methods, stream):
        notes.append(f"{' and '.join(names)} was told where tasks begin and end, which this stream hides from others")
    if stream.unfinished_task is not None:
        notes.append(
            f"the run ended in task {stream.unfinished_task + 1} of {stream.info.num_tasks}, so its "
            "averages are over fewer tasks"
        )
    if any(isinstance(part, PromptProvider) and part.batch_dependent for part in pl_module.modules()):
        notes.append("predictions depend on the batch: prompts are chosen by a vote over it")
    return notes


def write_report(trainer: Trainer, report: ContinualReport, wanted: Written, contents: str) -> list[Path]:
    """Write a report into the run's folder and print where; its files.

    Args:
        trainer: The Trainer.
        report: The report.
        wanted: ``"numbers"``: without pictures.
        contents: What the files hold beside them, for the person who reads where they are.
    """
    pictures = wanted != "numbers"
    folder = report.write(run_folder(trainer), pictures=pictures).parent
    print(f"{contents}{' and pictures' if pictures else ''}: {folder}")
    return report_files(folder)
