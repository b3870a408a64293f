"""Check the protocol of a configuration before it is run, or of a finished run: ``lightning-cl check``."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jsonargparse import Namespace
from torch import Tensor

from lightning_cl.callbacks import ContinualEvaluation, ProtocolGuard, VirtualOutlierRegularizer
from lightning_cl.callbacks.evaluation import data_checks
from lightning_cl.callbacks.evaluation.protocol_probe import evenly
from lightning_cl.cli.checkpoints import newest_first
from lightning_cl.cli.command import ContinualCLI, built
from lightning_cl.cli.configs import UsageError, find_config
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.namespace import PYTORCH, Callback, ModelCheckpoint
from lightning_cl.reports.protocol import ProtocolCard
from lightning_cl.reports.report import FILE_NAME, read
from lightning_cl.reports.tables import protocol_table

TASKS, SAMPLES, BATCH, STEPS, PROBE = 2, 64, 16, 4, 16  # of a trial
#: Of the Trainer: one process, no bars, a few batches; its callbacks write into a folder that goes.
_TRIAL: dict[str, Any] = {
    **{"devices": 1, "num_nodes": 1, "strategy": "auto", "fast_dev_run": False, "profiler": None},
    **{"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0},
    **{"check_val_every_n_epoch": 1, "val_check_interval": None, "limit_train_batches": STEPS, "limit_val_batches": 1},
    **{"max_epochs": -1, "max_steps": -1, "max_time": None},
}


def main(options: argparse.Namespace, rest: list[str], debug: bool) -> int:
    """Print a protocol card and return the exit code: 0, or 1 for a violation."""
    from rich.console import Console

    folder = Path(options.target)
    if folder.name == FILE_NAME and folder.is_file():  # a run's report, for the run
        folder = folder.parent
    if options.target and folder.is_dir():
        card = of_run(newest_version(folder), rest, debug)
    else:
        given = ["--config", find_config(options.target)] if options.target else []
        card = _look(["fit", *given, *rest], debug)
    console = Console()
    console.print(protocol_table(card))
    console.print(card.notes()[0].capitalize() + ".", soft_wrap=True, markup=False)
    return 1 if card.violations else 0


def newest_version(folder: Path) -> Path:
    """The folder itself if a run left something in it, else its newest ``version_*``."""
    for path in (folder, *sorted(folder.glob("version_*"), key=lambda path: path.stat().st_mtime, reverse=True)):
        if (path / FILE_NAME).is_file() or ((path / "config.yaml").is_file() and _checkpoints(path)):
            return path
    raise UsageError(
        f"{folder} holds no run: there is no {FILE_NAME}, and no config.yaml with a checkpoint; give the folder that a "
        "run wrote, or a recipe or config to check before it is run."
    )


def of_run(folder: Path, options: list[str], debug: bool) -> ProtocolCard:
    """The card in the report, with the findings of a new look at the newest checkpoint where there is one."""
    recorded = read(folder).protocol if (folder / FILE_NAME).is_file() else None
    card = ProtocolCard() if recorded is None else ProtocolCard.from_dict(recorded)
    config, saved = folder / "config.yaml", _checkpoints(folder)
    if config.is_file() and saved:
        print(f"Looking at {saved[0]} with {config}.")
        words = ["validate", "--config", str(config), *options, "--ckpt_path", str(saved[0])]
        return card.add(_look(words, debug).checks)
    if not card.checks:
        raise UsageError(
            f"the run in {folder} was made without `ProtocolGuard`, and it left no config.yaml with a checkpoint to "
            "look at now; run it again with `--trainer.callbacks+ ProtocolGuard`."
        )
    print(f"As recorded in {folder / FILE_NAME}; there is no checkpoint with a config.yaml to look at anew.")
    return card


def _checkpoints(folder: Path) -> list[Path]:
    return newest_first([folder / "checkpoints"])


def _look(words: list[str], debug: bool) -> ProtocolCard:
    """Run the first tasks of a configuration, or a validation, on few samples, without leaving a file."""
    with TemporaryDirectory() as folder, _quiet():
        return built(CheckingCLI, words, debug, folder=folder, save_config_callback=None).card


@contextmanager
def _quiet() -> Iterator[None]:
    """Only the card speaks: what Lightning says of a run is not true of a trial."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class CheckingCLI(ContinualCLI):
    """Builds everything as a run does, and looks at it instead: its ``card``. Callbacks may write into the folder."""

    def __init__(self, *, folder: str, **options: Any) -> None:
        self._folder = folder
        super().__init__(**options)

    def before_instantiate_classes(self) -> None:
        """One process, no files and no bars; then as in a run."""
        trainer = self.config[str(self.subcommand)].trainer
        init_args = Namespace(save_dir=self._folder)  # type: ignore[no-untyped-call]
        logger = Namespace(class_path=f"{PYTORCH}.loggers.CSVLogger", init_args=init_args)  # type: ignore[no-untyped-call]
        for name, value in {**_TRIAL, "default_root_dir": self._folder, "logger": logger}.items():
            trainer[name] = value
        super().before_instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        trainer: Any = self.trainer
        stream: ContinualDataModule = self.datamodule
        guard = _prepared(trainer)
        stream.prepare_data()
        stream.setup()
        images, guard.duplicates = guard.duplicates, 0
        of_data = [data_checks.overlap(stream), data_checks.duplicates(stream, images)]  # of the whole stream
        _shorten(stream, trainer.callbacks)
        if subcommand == "fit":
            shown = stream.schedule.epochs[:TASKS]
            trainer.fit_loop.max_epochs = sum(shown)
            print(f"A trial: {len(shown)} of {stream.info.num_tasks} task(s), a few batches each, on one process.")
            trainer.fit(self.model, datamodule=stream)
        else:
            ckpt_path = self.config[subcommand].ckpt_path
            trainer.validate(self.model, datamodule=stream, ckpt_path=ckpt_path, verbose=False)
        known = {check.name for check in of_data}
        self.card = ProtocolCard(tuple(c for c in guard.card.checks if c.name not in known)).add(of_data)


def _prepared(trainer: Any) -> ProtocolGuard:
    """The guard of a Trainer, there or added; checkpoints go, but for what one monitors, and nothing is written."""
    kept = (c for c in trainer.callbacks if not isinstance(c, ModelCheckpoint) or c.monitor is not None)
    trainer.callbacks = list(kept)
    guards = [c for c in trainer.callbacks if isinstance(c, ProtocolGuard)]
    if not guards:
        guards = [ProtocolGuard(probe=PROBE, print_card=False)]
        trainer.callbacks += guards
    for callback in trainer.callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.save_top_k, callback.save_last = 0, None
        elif isinstance(callback, ContinualEvaluation):
            callback.report = callback.print_table = False
        elif isinstance(callback, ProtocolGuard):
            callback.print_card, callback.on_violation = False, "warn"
    return guards[0]


def _shorten(stream: ContinualDataModule, callbacks: list[Callback]) -> None:
    """Few epochs of small batches of few samples; of an online stream the order stays as it is."""
    sizes = stream.batch_size
    stream.batch_size = min(sizes, BATCH) if isinstance(sizes, int) else [min(size, BATCH) for size in sizes]
    stream.eval_batch_size = min(stream.eval_batch_size, PROBE)
    stream.num_workers, stream.persistent_workers, stream.evaluate_on = 0, False, "seen"
    if stream.online:
        return
    epochs, samples = 1, SAMPLES
    for callback in callbacks:
        if isinstance(callback, VirtualOutlierRegularizer):  # its phases need room
            epochs = max(epochs, callback.warm_up_epochs + (callback.outlier_epochs or 1) + 1)
            samples = max(samples, callback.neighbours, callback.boundary_points)
    stream.epochs_per_task = min(epochs, *stream.schedule.epochs)
    stream.plan_schedule()
    few: Callable[[Tensor], Tensor] = partial(evenly, count=samples)
    stream._layout = replace(stream.layout, train_index=tuple(few(part) for part in stream.layout.train_index))
