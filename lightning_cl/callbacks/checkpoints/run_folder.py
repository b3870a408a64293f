"""Find the folder where a run keeps its files, on one process."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_cl.namespace import Trainer


def run_folder(trainer: Trainer) -> Path:
    """The folder of the first logger's run, or ``default_root_dir`` without a logger.

    With W&B and others that have no folder for one run it is ``save_dir/name/version``, where Lightning also keeps
    their checkpoints; with the rest it is ``trainer.log_dir``. But for that every process has to ask, or the one that
    does waits for ever: after an error in one process the others are elsewhere. Ask in the first process, whose folder
    it is.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    folder, save_dir = getattr(logger, "log_dir", None), getattr(logger, "save_dir", None)
    if logger is None or not isinstance(folder or save_dir, (str, os.PathLike)):
        return Path(os.fspath(trainer.default_root_dir))
    if folder:
        return Path(os.fspath(folder))
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    assert save_dir is not None
    return Path(os.fspath(save_dir), str(logger.name), version)
