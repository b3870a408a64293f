"""Fits that are stopped from inside or outside, in forked processes that a watchdog ends, and resumed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datamodules.tiny_stream import TinyModule, make_stream, make_trainer
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from ports import free_port

from lightning_cl.callbacks import ContinualCheckpoint, ContinualEvaluation

#: Optimiser steps at the end of each task of the tiny stream: 2 epochs of 2, one of 3, 2 of 4.
BOUNDARIES = (4, 7, 15)


class NoisyModule(TinyModule):
    """Its training draws random numbers, and so does its validation: a resumed run must have the right ones."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        torch.rand(3)
        super().validation_step(batch, batch_idx)


@dataclass
class Run:
    module: LightningModule
    trainer: Trainer
    evaluation: ContinualEvaluation

    def result(self) -> dict[str, Any]:
        """Weights, momenta, accuracy matrix and steps."""
        return {
            "weights": self.module.state_dict(),
            "optimizer": self.trainer.optimizers[0].state_dict()["state"],
            "matrix": [self.evaluation.correct["class_il"], self.evaluation.total],
            "steps": self.trainer.global_step,
            "random": torch.get_rng_state(),
        }


def fit(
    folder: Path,
    callbacks: Sequence[Callback] = (),
    ckpt_path: Any = None,
    checkpoint: ContinualCheckpoint | None = None,
    make_module: Callable[[], LightningModule] = NoisyModule,
    stream: dict[str, Any] | None = None,
    **options: Any,
) -> Run:
    """A whole run in fresh objects, its files in ``folder / "checkpoints"``."""
    seed_everything(1, verbose=False)
    checkpoint = checkpoint or ContinualCheckpoint(every_n_steps=3, every_n_minutes=None)
    evaluation = ContinualEvaluation(report=False, print_table=False)
    module = make_module()  # after the seed
    trainer = make_trainer(folder, [*callbacks, evaluation, checkpoint], **options)
    trainer.fit(module, datamodule=make_stream(**{"eval_batch_size": 3, **(stream or {})}), ckpt_path=ckpt_path)
    return Run(module, trainer, evaluation)


def last(folder: Path) -> dict[str, Any]:
    """The content of ``last.ckpt``."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


class SignalAt(Callback):
    """Sends signals at the start of a batch and waits until they have arrived."""

    def __init__(self, step: int, *numbers: int, where: str = "train", rank: int | None = None) -> None:
        self.step, self.numbers, self.where, self.rank, self.sent = step, numbers, where, rank, False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._send(trainer, "train")

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._send(trainer, "validation" if not trainer.sanity_checking else "sanity")

    def _send(self, trainer: Trainer, where: str) -> None:
        mine = self.rank is None or trainer.global_rank == self.rank
        if where == self.where and trainer.global_step == self.step and mine and not self.sent:
            self.sent = True
            for number in self.numbers:
                os.kill(os.getpid(), number)
            time.sleep(0.01)  # a handler of Python runs between two instructions


class WaitForSignal(Callback):
    """Tells the test its process id, and does not go on before the test has sent a signal."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            (self.folder / f"ready-{os.getpid()}").touch()
            checkpoint = trainer.checkpoint_callback
            while not checkpoint._signals.asked:
                time.sleep(0.005)


def in_children(
    function: Callable[[], Any], count: int = 1, during: Callable[[list[int]], None] | None = None
) -> list[int]:
    """Exit codes of forked processes that run ``function`` as ranks; negative: the signal that ended them.

    Args:
        during: Called with the process ids while they run.
    """
    port = free_port()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_as_rank, args=(function, rank, count, port)) for rank in range(count)]
    for child in children:
        child.start()
    try:
        if during is not None:
            during([int(child.pid or 0) for child in children])
        for child in children:
            child.join(timeout=90)
            assert not child.is_alive(), "a process hangs"
    finally:
        for child in children:
            child.kill()
            child.join()
    return [int(child.exitcode or 0) for child in children]


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds; a watchdog ends what never comes."""
    for _ in range(30_000):  # five minutes: a fresh interpreter on a busy machine
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("never happened")


def _as_rank(function: Callable[[], Any], rank: int, world_size: int, port: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if world_size > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world_size}
        os.environ.update({k: str(v) for k, v in {**address, "LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": 0}.items()})
    try:
        function()
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    except BaseException:
        traceback.print_exc()
        os._exit(99)
    os._exit(0)
