"""Where a run keeps its files, asked by one process alone."""

from __future__ import annotations

import os
from pathlib import Path

from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """The folder of the first logger, or ``default_root_dir`` without one.

    ``trainer.log_dir`` is the same, but every process has to ask for it, or the one that does waits for ever: after
    an error in one process the others are elsewhere. Ask in the first process, whose folder it is.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    folder = getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None) or trainer.default_root_dir
    return Path(os.fspath(folder))
