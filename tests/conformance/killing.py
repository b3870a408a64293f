"""A power cut at any place of any step, and runs that go on from their last checkpoint."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fsspec.implementations.local import LocalFileOpener
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cl.callbacks import AnytimeEvaluation, ContinualCheckpoint, ContinualMethod

from .methods import make
from .modules import Case
from .records import record
from .runs import in_forked_processes, train

PLACES = ("before forward", "after backward", "after the step", "gathering state", "writing a file", "in validation")


@dataclass(frozen=True)
class KillPoint:
    """The first time that ``place`` is reached with at least ``step`` optimiser steps made."""

    step: int
    place: str


def draw_points(seed: str, count: int, validations: Sequence[int]) -> list[KillPoint]:
    """Points in the order in which a run reaches them, every place about equally often; a function of the seed alone.

    Args:
        validations: Optimiser steps after which there is a validation, the last of them at the end of the run.
    """
    generator = random.Random(seed)
    latest = validations[-1] - 3  # so that a checkpoint is still to come, with one every three steps
    points = [KillPoint(generator.randrange(latest), PLACES[i % len(PLACES)]) for i in range(count)]
    return sorted(
        points, key=lambda p: next(v for v in validations if v >= p.step) if p.place == PLACES[-1] else p.step
    )


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
            LocalFileOpener.write = _write_half_and_die  # Lightning's plugin
            os.fsync = _cut_in_half_and_die  # that of ContinualCheckpoint


def _write_half_and_die(opener: Any, data: bytes) -> None:
    opener.f.write(data[: len(data) // 2])
    opener.f.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def _cut_in_half_and_die(file: int) -> None:
    os.ftruncate(file, os.fstat(file).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def lightnings_own(folder: Path, every: int) -> Callback:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=every, save_top_k=1, save_last=True)


def ours(folder: Path, every: int) -> Callback:
    return ContinualCheckpoint(folder, every_n_steps=every, keep_tasks=False)


def attempt(
    case: Case,
    method: type[ContinualMethod],
    folder: Path,
    point: KillPoint | None,
    saving: Callable[[Path, int], Callback],
    every: int = 1,
    **options: Any,
) -> dict[str, Any] | None:
    """Go on from the last checkpoint in ``folder`` in a new process; what the run left behind, or None if killed.

    Args:
        point: Where to kill it; ``None``: never.
        saving: Makes the callback that writes ``last.ckpt``; see :func:`lightnings_own` and :func:`ours`.
        every: Optimiser steps between two checkpoints.
        options: As :func:`~.runs.train` takes them.
    """
    path = folder / "record.pt"

    def run() -> None:
        cut = [] if point is None else [PowerCut(point)]
        anytime = AnytimeEvaluation(every_n_samples=20, report=False)
        callbacks = [anytime, *cut, saving(folder, every)]
        done = train(case, make(method), folder, callbacks=callbacks, ckpt_path="last", **options)
        torch.save(record(done), path)

    (code,) = in_forked_processes(run)
    assert code in (0, -signal.SIGKILL), f"the run from the last checkpoint failed, to be killed at {point}"
    return torch.load(path, weights_only=True) if code == 0 else None
