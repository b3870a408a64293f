"""The files of a run besides its results: its configuration, the link to the newest run, and none after a failure."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_cl.callbacks.checkpoints.run_folder import run_folder
from lightning_cl.namespace import LightningModule, SaveConfigCallback, Trainer

#: In the folder of all runs of a name.
LATEST = "latest"
_BEFORE_TRAINING = ("config.yaml", "hparams.yaml", "metrics.csv")


class RunConfig(SaveConfigCallback):
    """Keeps the configuration of a run in its folder, also with W&B and other loggers that have none for one run.

    There Lightning writes into the folder of all runs, and refuses the second run because of the first one's file.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration, once."""
        self.save_to_log_dir = not trainer.loggers or bool(getattr(trainer.loggers[0], "log_dir", None))
        folder = run_folder(trainer) if trainer.is_global_zero and self.save_to_log_dir and trainer.loggers else None
        new = folder is not None and not (folder.is_dir() and any(folder.iterdir()))
        super().setup(trainer, pl_module, stage)
        if new and folder is not None:
            point_to(folder)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called in the first process only."""
        if self.save_to_log_dir:
            return
        logger: Any = trainer.loggers[0]
        _ = logger.experiment  # only now the run has a name
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.config_filename
        # by place: the argument's name, skip_none, is another since jsonargparse 4.49
        self.parser.save(self.config, path, "parser_mode", False, overwrite=True, multifile=self.multifile)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no folder of a run that failed before its first step."""
        if trainer.is_global_zero and trainer.loggers and not trainer.global_step and isinstance(exception, Exception):
            remove_empty_run(run_folder(trainer))


def point_to(folder: Path) -> None:
    """Let ``latest`` beside a run's folder lead to it, where the file system has links."""
    link = folder.parent / LATEST
    with suppress(OSError):
        if link.is_symlink():
            link.unlink()
        link.symlink_to(folder.name, target_is_directory=True)


def remove_empty_run(folder: Path) -> None:
    """Remove a folder that holds only what is written before the training, and the folders that are empty then."""
    checkpoints, link = folder / "checkpoints", folder.parent / LATEST
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= {*_BEFORE_TRAINING, checkpoints.name}:
        return
    with suppress(OSError):  # something is in there
        if checkpoints.is_dir():
            checkpoints.rmdir()
        for name in _BEFORE_TRAINING:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
        if link.is_symlink() and not link.exists():
            link.unlink()
            before = [path for path in folder.parent.glob("version_*") if path.is_dir()]
            if before:
                point_to(max(before, key=lambda path: path.stat().st_mtime_ns))
        folder.parent.rmdir()
        folder.parent.parent.rmdir()


def keep_nothing(trainer: Namespace) -> bool:
    """Without a logger and a folder of one's own: take out what would write files into the current folder."""
    if trainer.get("logger") is not False or trainer.get("default_root_dir"):
        return False
    kept = []
    for entry in trainer.get("callbacks") or []:
        settings = entry.get("init_args") if isinstance(entry, Namespace) else None
        if settings is not None and "report" in settings:
            settings["report"] = False
        if not _saves(entry) or (settings and settings.get("dirpath")):
            kept.append(entry)
    trainer["callbacks"] = kept
    trainer["enable_checkpointing"] = any(map(_saves, kept))
    return True


def _saves(entry: Any) -> bool:
    return isinstance(entry, Namespace) and str(entry.class_path).endswith("Checkpoint")
