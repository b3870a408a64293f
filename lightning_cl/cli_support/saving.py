"""Keeps the configuration of a run of the command in the run's own folder."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lightning_cl.callbacks.run_folder import run_folder


class RunConfig(SaveConfigCallback):
    """Lightning's callback, except with W&B and other loggers that have no folder for one run.

    There Lightning writes into the folder of all runs, and refuses the second run because of the first one's file.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration, once."""
        self.save_to_log_dir = not trainer.loggers or bool(getattr(trainer.loggers[0], "log_dir", None))
        super().setup(trainer, pl_module, stage)

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
