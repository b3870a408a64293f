"""Teach a model one more source of images: a fit that goes on from its last version, and may be killed at any time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.checkpoints.continual_checkpoint import ContinualCheckpoint
from lightning_cl.callbacks.evaluation.continual_evaluation import ContinualEvaluation
from lightning_cl.checkpoint_file import is_intact, read_checkpoint
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule
from lightning_cl.datamodules.extension import ExtendedScenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.extended import ExtendedSource
from lightning_cl.datamodules.sources.past_tasks import PastTasks
from lightning_cl.lifelong.configuration import Configuration
from lightning_cl.namespace import Callback, LightningModule, Logger, Trainer, seed_everything
from lightning_cl.reports import ContinualReport


class Lesson:
    """One fit.

    Args:
        configuration: Of the model.
        source: The new images, set up.
        past: What is left of the tasks before; ``None``: this is the first call.
        planned: Epochs of each of those tasks.
        epochs: For the new task.
        loggers: Of the Trainer.
    """

    def __init__(
        self,
        configuration: Configuration,
        source: Source,
        past: PastTasks | None,
        planned: Sequence[int],
        epochs: int,
        loggers: Sequence[Logger] = (),
    ) -> None:
        self.configuration, self.loggers = configuration, list(loggers)
        self.stream = _stream(configuration, source, past, planned, epochs)
        self.stream.setup()
        self.evaluation = ContinualEvaluation(configuration.head, report=False, print_table=False)
        self.report: ContinualReport | None = None

    def run(self, folder: Path, start: dict[str, Any] | None) -> LightningModule:
        """Fit, or go on with a fit that was killed; the trained module.

        Args:
            folder: Where checkpoints are kept while it runs.
            start: The checkpoint of the last version; ``None``: this is the first call.
        """
        configuration = self.configuration
        seed_everything(configuration.seed, verbose=False)
        module = configuration.build_module(self.stream.info.num_classes, fresh=start is None)
        trainer = self._trainer(folder, configuration.build_methods())
        trainer.fit(module, datamodule=self.stream, ckpt_path=_entry(folder, start))
        self.report = self.evaluation.build_report(trainer, module)
        return module

    def _trainer(self, folder: Path, methods: Sequence[ContinualMethod]) -> Trainer:
        saving = ContinualCheckpoint(folder / "checkpoints", keep_tasks=False)
        saving.speaks = False
        callbacks: list[Callback] = [*methods, self.evaluation, saving]
        return Trainer(
            max_epochs=-1,
            devices=1,
            logger=self.loggers or False,
            callbacks=callbacks,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            log_every_n_steps=1,
        )

    def accuracies(self) -> tuple[list[int], list[int], list[int | None]]:
        """For each task: right answers and all evaluation images now, and right answers after it was learned.

        ``None``: images of then are not all there, so the two cannot be compared.
        """
        correct, total = self.evaluation.correct["class_il"], self.evaluation.total
        last = len(total) - 1
        now, count = correct[last].tolist(), total[last].tolist()
        then = [int(correct[t, t]) if int(total[t, t]) == count[t] else None for t in range(len(total))]
        return now, count, then


def last_checkpoint(folder: Path) -> dict[str, Any]:
    """What a finished fit has saved."""
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


def _entry(folder: Path, start: dict[str, Any] | None) -> Path | None:
    """The checkpoint to go on from: that of a killed fit, or the last version's, as a file for the Trainer."""
    killed = folder / "checkpoints" / "last.ckpt"
    if killed.is_file() and is_intact(killed):
        return killed
    if start is None:
        return None
    torch.save(start, folder / "start.ckpt")
    return folder / "start.ckpt"


def _stream(
    configuration: Configuration, source: Source, past: PastTasks | None, planned: Sequence[int], epochs: int
) -> ContinualDataModule:
    """The stream of the past tasks and the new one, as if it had been extended."""
    options: dict[str, Any] = {"batch_size": configuration.batch_size, "seed": configuration.seed}
    if past is None:
        return ContinualDataModule(source, ClassIncremental(num_tasks=1), epochs_per_task=epochs, **options)
    borders = [0, *(tasks for tasks, _ in past.info.extended_from), past.info.num_tasks]
    parts = [list(planned[a:b]) for a, b in pairwise(borders)]
    scenario = ExtendedScenario([ClassIncremental(past.info.num_tasks), ClassIncremental(1)], [*parts[1:], [epochs]])
    both = ExtendedSource([past, source], ["by_name"])
    return ContinualDataModule(both, scenario, epochs_per_task=parts[0], **options)
