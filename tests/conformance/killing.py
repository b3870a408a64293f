"""A power cut at any place of any step, and runs that go on from their last checkpoint."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fsspec.implementations.local import LocalFileOpener
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cl.callbacks import ContinualMethod

from .methods import make
from .modules import Case
from .records import record
from .runs import in_forked_processes, train

PLACES = ("before forward", "after backward", "after the step", "gathering state", "writing a file", "in validation")


@dataclass(frozen=True, order=True)
class KillPoint:
    """The first time that ``place`` is reached with at least ``step`` optimiser steps made."""

    step: int
    place: str


def draw_points(seed: str, count: int, steps: int) -> list[KillPoint]:
    """Points in the order of the run, every place about equally often; a function of the seed alone."""
    generator = random.Random(seed)
    return sorted(KillPoint(generator.randrange(steps), PLACES[i % len(PLACES)]) for i in range(count))


class PowerCut(Callback):
    """Ends the process at a point by SIGKILL: nothing is flushed, nothing cleaned up."""

    def __init__(self, point: KillPoint | None) -> None:
        self.point = point

    def _reached(self, trainer: Trainer, place: str) -> bool:
        return self.point is not None and self.point.place == place and trainer.global_step >= self.point.step

    def _at(self, trainer: Trainer, place: str) -> None:
        if self._reached(trainer, place):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._at(trainer, "before forward")

    def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
        self._at(trainer, "after backward")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._at(trainer, "after the step")  # checkpoints are made by the last callbacks

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._at(trainer, "in validation")

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        self._at(trainer, "gathering state")
        if self._reached(trainer, "writing a file"):
            LocalFileOpener.write = _write_half_and_die


def _write_half_and_die(opener: Any, data: bytes) -> None:
    opener.f.write(data[: len(data) // 2])
    opener.f.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(
    case: Case, method: type[ContinualMethod], folder: Path, point: KillPoint | None, every: int = 1, **options: Any
) -> dict[str, Any] | None:
    """Go on from the last checkpoint in ``folder`` in a new process; what the run left behind, or None if killed.

    Args:
        point: Where to kill it; ``None``: never.
        every: Optimiser steps between two checkpoints.
        options: As :func:`~.runs.train` takes them.
    """
    path = folder / "record.pt"

    def run() -> None:
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=every, save_top_k=1, save_last=True)
        cut = [] if point is None else [PowerCut(point)]
        done = train(case, make(method), folder, callbacks=[*cut, saving], ckpt_path="last", **options)
        torch.save(record(done), path)

    (code,) = in_forked_processes(run)
    assert code in (0, -signal.SIGKILL), f"the run from the last checkpoint failed, to be killed at {point}"
    return torch.load(path, weights_only=True) if code == 0 else None
