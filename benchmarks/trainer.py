"""What the benchmarks of whole runs share: a quiet process, a Trainer that only fits, and minutes beside the report."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer


def quiet(threads: int = 1) -> None:
    """So many threads, no warning and no message of the Trainer."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def make_trainer(callbacks: Sequence[Callback], folder: Path | str | None = None, **options: Any) -> Trainer:
    """A Trainer of the whole stream on the CPU, without logger, checkpoints and progress bar; reports in a folder."""
    return Trainer(
        accelerator="cpu",
        max_epochs=-1,
        callbacks=[*callbacks],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def note_minutes(folder: Path, start: float, threads: int = 1, digits: int = 1) -> str:
    """Leave in ``minutes.txt``, which `enter.py` reads, how long a run took since ``start`` (of ``time.perf_counter``).

    Returns:
        ``"1.5 minutes"``.
    """
    minutes = f"{(time.perf_counter() - start) / 60:.{digits}f} minutes"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "minutes.txt").write_text(f"{minutes} with {threads} thread(s)\n")
    return minutes
