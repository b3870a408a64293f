"""Find the checkpoint that a run of the command goes on from, and name it when a run stops."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import Namespace

from lightning_cl.callbacks import ContinualCheckpoint
from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import clear_leftovers
from lightning_cl.callbacks.checkpoints.continual_checkpoint import position
from lightning_cl.callbacks.checkpoints.run_folder import run_folder
from lightning_cl.checkpoint_file import damage
from lightning_cl.cli.configs import UsageError, require_writable
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.leftovers import clear_report_leftovers
from lightning_cl.namespace import Callback, LightningModule, Trainer, rank_zero_info, rank_zero_warn


class InterruptNotice(Callback):
    """Says where a run stopped and how to continue it; the report itself is written by ``ContinualEvaluation``."""

    interrupted = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Speak for the checkpoints, in the words of the command line."""
        for callback in _checkpoints(trainer):
            callback.speaks = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After Ctrl-C and SIGTERM name the report too; after an error only the checkpoint, if the run has one."""
        self.interrupted = isinstance(exception, KeyboardInterrupt)
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        if not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        folder = run_folder(trainer)
        path = self._newest(trainer, folder, stopped)
        go_on = f" Continue with `--ckpt_path {path}`." if path else ""
        report = folder / "continual_report.json"
        if stopped:
            what = f"Report: {report}." if report.is_file() else f"No task was evaluated yet. Folder: {folder}."
            print(f"\nlightning-cl: interrupted in {position(trainer)}. {what}{go_on}", file=sys.stderr)
        elif go_on:
            print(f"\nlightning-cl: stopped in {position(trainer)}.{go_on}", file=sys.stderr)

    @staticmethod
    def _newest(trainer: Trainer, folder: Path, stopped: bool) -> str | None:
        for callback in _checkpoints(trainer):
            return callback.newest(trainer, own=not stopped)
        saved = newest_first([folder / "checkpoints"])
        return str(saved[0]) if saved else None


def last_checkpoint(trainer: Namespace) -> str:
    """Newest complete checkpoint of all versions of a run; Lightning looks only into the version that is to begin.

    The run goes on in the folder of a new version, so that the logs of the one before stay; the accuracy matrix goes
    on too, so the report there is that of the whole run.
    """
    folders, where = checkpoint_folders(trainer)
    for path in newest_first(folders):
        clear_leftovers(path.parent)
        clear_report_leftovers(path.parent.parent)
        if path.is_dir() or (reason := damage(path)) is None:
            rank_zero_info(f"Checkpoint: {path}")
            return str(path)
        rank_zero_warn(f"{path} {reason} and is passed over.")
    raise UsageError(f"`--ckpt_path last` found no checkpoint in {where}; start without it, or give a path.")


def given_checkpoint(path: str) -> None:
    """Refuse a path that leads to no checkpoint; words and addresses that only Lightning can follow are left to it."""
    if path in ("last", "best", "hpc") or path.startswith("registry") or "://" in path:
        return
    what_to_do = "give the path of a checkpoint, or `--ckpt_path last` for the newest of this run."
    if not Path(path).exists():
        raise UsageError(f"there is no checkpoint `{path}`; {what_to_do}")
    if damage(Path(path)) == "was not written to its end":  # other damage is told where an intact one can be offered
        raise UsageError(f"`{path}` is no checkpoint, or was not written to its end; {what_to_do}")


def check_output(trainer: Namespace) -> None:
    """Refuse a run whose results cannot be written, before it has any."""
    if trainer.get("fast_dev_run") or trainer.get("logger") is False:
        return
    folder = checkpoint_folders(trainer)[1].parent
    if ":/" not in str(folder):  # else an address
        require_writable(folder, "`--trainer.logger.save_dir DIR` (without a logger: `--trainer.default_root_dir DIR`)")


def checkpoint_folders(trainer: Namespace) -> tuple[list[Path], Path]:
    """List the folders where the checkpoints of a configured run may lie, and that of its logger."""
    given = [entry.get("init_args", {}).get("dirpath") for entry in trainer.get("callbacks") or []]
    own = [Path(folder) for folder in given if folder]
    root, logger = Path(trainer.get("default_root_dir") or ""), trainer.get("logger")
    logger = logger[0] if isinstance(logger, list) and logger else logger
    if logger is False:
        return [*own, root / "checkpoints"], root
    init_args = logger.get("init_args", {}) if isinstance(logger, Namespace) else {"name": "lightning_logs"}
    save_dir = Path(init_args.get("save_dir") or init_args.get("dir") or root)
    name = init_args.get("project") or init_args.get("name") or "*"  # of W&B; of the others; given by a server
    found = [path for path in save_dir.glob(f"{name}/*/checkpoints") if not path.parent.is_symlink()]  # `latest`
    return [*own, *found], save_dir / name


def newest_first(folders: list[Path]) -> list[Path]:
    """Checkpoints in the folders."""
    found = {path for folder in folders for path in folder.glob("*.ckpt")}
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _checkpoints(trainer: Trainer) -> list[ContinualCheckpoint]:
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, ContinualCheckpoint)]
