"""One W&B run for each call of ``learn``, all of a model in one group, with the lineage as artifacts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cl.lifelong.model_folder import RECORD, ModelFolder
from lightning_cl.namespace import Logger, WandbLogger
from lightning_cl.reports.report import report_files

#: Entries of a version's record that its artifact has, too.
_FACTS = ("action", "data", "hash", "date", "parent", "class_names")


def wandb_logger(folder: ModelFolder, project: str) -> WandbLogger:
    """A logger of the next call; with ``WANDB_MODE=offline`` its run lies in the model folder, for ``wandb sync``."""
    folder.path.mkdir(parents=True, exist_ok=True)
    group = Path(os.path.abspath(folder.path)).name
    number = max(folder.index()["versions"], default=0) + 1 if folder.exists() else 1
    options: dict[str, Any] = {"group": group, "job_type": "learn", "reinit": True}
    return WandbLogger(name=f"{group}-{number}", project=project, save_dir=str(folder.path), **options)


def log_lineage(loggers: Sequence[Logger], folder: ModelFolder, number: int) -> None:
    """Add a version's record and the report to the W&B runs of a call, and end them.

    The artifact is called as the model and has the versions that it was made from in its metadata.
    """
    runs = [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]
    if not runs:
        return
    import wandb

    record = folder.record(number)
    for run in runs:
        run.summary["version"] = number
        facts = {key: record[key] for key in _FACTS if key in record}
        name = Path(os.path.abspath(folder.path)).name
        artifact = wandb.Artifact(f"{name}-lineage", type="lineage", metadata={"version": number, **facts})
        for file in (folder.path / "versions" / str(number) / RECORD, *report_files(folder.report)):
            artifact.add_file(str(file), name=file.name)
        run.log_artifact(artifact)
        run.finish()
