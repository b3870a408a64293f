"""Runs of a method over the stream: in this process, in two, or until something kills them."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from multiprocessing import connection
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from ports import free_port
from torch import Tensor

from lightning_cl.callbacks import ContinualEvaluation, ContinualMethod
from lightning_cl.datamodules import ContinualDataModule

from .methods import make
from .modules import Case, suited
from .streams import NUM_TASKS, make_stream
from .watching import Watcher


@dataclass
class Run:
    """A finished fit."""

    module: Any
    method: ContinualMethod
    stream: ContinualDataModule
    evaluation: ContinualEvaluation
    watcher: Watcher
    trainer: Trainer

    def evaluated(self) -> Tensor:
        """``(T, T)`` bool: the cells of the accuracy matrix that a whole run fills."""
        cells = torch.ones(NUM_TASKS, NUM_TASKS, dtype=torch.bool)
        return cells if self.stream.scenario.evaluates_all else cells.tril()

    def result(self) -> dict[str, Any]:
        """All weights and buffers, the counts of the accuracy matrix, and the number of optimiser steps."""
        counts = {f"correct/{space}": counts for space, counts in self.evaluation.correct.items()}
        return {
            **{f"module/{name}": value.detach().clone() for name, value in self.module.state_dict().items()},
            **counts,
            "total": self.evaluation.total,
            "samples_seen": torch.tensor(self.evaluation.samples_seen),
            "steps": torch.tensor(self.trainer.global_step),
        }


def train(
    case: Case,
    method: ContinualMethod,
    folder: Path,
    *,
    optimizer: str = "adamw",
    dropout: float = 0.0,
    callbacks: Sequence[Callback] = (),
    ckpt_path: Path | None = None,
    stream_options: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> Run:
    """One fit over the whole stream, in fresh objects, from seed 0."""
    seed_everything(0, verbose=False)
    case = suited(case, method)
    module = case.build(optimizer, dropout)
    options = {"batch_keys": case.batch_keys, "task_identity": method.needs_task_identity, **(stream_options or {})}
    stream = case.stream(**options) if case.stream else make_stream(**{"kind": method.stream_kind, **options})
    evaluation = ContinualEvaluation(report=False, print_table=False)
    watcher = Watcher(case)
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
            **trainer_options,
        },
        callbacks=[method, evaluation, watcher, *callbacks],
    )
    trainer.fit(module, datamodule=stream, ckpt_path=ckpt_path)
    return Run(module, method, stream, evaluation, watcher, trainer)


_FOLDER = TemporaryDirectory()


def finished_run(method: type[ContinualMethod], case: Case, optimizer: str = "adamw") -> Run:
    """A finished run of a method on a module, made once for the tests of all files: only to be looked at."""
    return _finished(method, case, optimizer)


@cache
def _finished(method: type[ContinualMethod], case: Case, optimizer: str) -> Run:
    return train(case, make(method), Path(_FOLDER.name), optimizer=optimizer)


def attached(case: Case, method: ContinualMethod, optimizer: str = "adamw") -> LightningModule:
    """A module with the method in it, untrained and without a Trainer, from seed 0."""
    seed_everything(0, verbose=False)
    module = suited(case, method).build(optimizer, 0.0)
    method.attach_once(module, make_stream(method.stream_kind).info)
    if method.needs_task_identity:
        module.continual.task = 1
    return module


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    moved = [name for name, value in expected.items() if not torch.equal(actual[name].cpu(), value.cpu())]
    assert not moved, f"not bit-identical: {moved}"


# ---------------------------------------------------------------------- other processes

#: Seconds after which a rank counts as hung, and that the others get to notice that one of them died.
PATIENCE, GRACE = 240.0, 15.0


def in_forked_processes(function: Callable[[], None], count: int = 1, patience: float = PATIENCE) -> list[int]:
    """Run ``function`` in forked children (no fresh interpreter) that find each other as ranks; their exit codes.

    Raises:
        AssertionError: If a child does not come to an end although none failed; the message shows where it hangs.
    """
    port = free_port()
    context = multiprocessing.get_context("fork")
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile("w+")) for _ in range(count)]
        arguments = [(function, rank, count, port, files[rank]) for rank in range(count)]
        children = [context.Process(target=_as_rank, args=given) for given in arguments]
        for child in children:
            child.start()
        hung = _wait(children, patience)
        stacks = {rank: _end(children[rank], files[rank]) for rank in hung}
    codes: list[int] = [child.exitcode for child in children]
    if hung and all(codes[rank] == 0 for rank in range(count) if rank not in hung):
        raise AssertionError("\n".join(f"rank {r} of {count} hangs:\n{text}" for r, text in stacks.items()))
    return codes


def _wait(children: Sequence[Any], patience: float) -> list[int]:
    """Ranks that are still alive when patience ends: sooner when another has failed."""
    deadline, failed = time.monotonic() + patience, False
    while alive := [rank for rank, child in enumerate(children) if child.is_alive()]:
        if not failed and any(child.exitcode for child in children):  # neither 0 nor None
            failed, deadline = True, min(deadline, time.monotonic() + GRACE)
        left = deadline - time.monotonic()
        if left <= 0:
            return alive
        # Its data workers may outlive a killed child for a while, and hold its sentinel: look by yourself, too.
        connection.wait([children[rank].sentinel for rank in alive], timeout=min(left, 0.05))
    return []


def _end(child: Any, file: Any) -> str:
    """Ask where the child is, and kill it."""
    os.kill(child.pid, signal.SIGUSR1)
    for _ in range(50):  # at most a second
        time.sleep(0.02)
        if os.fstat(file.fileno()).st_size:
            break
    child.kill()
    child.join()
    file.seek(0)
    return str(file.read())


def _as_rank(function: Callable[[], None], rank: int, world_size: int, port: int, stack: Any) -> None:
    torch.set_num_threads(1)
    faulthandler.register(signal.SIGUSR1, file=stack, all_threads=True)  # also when Python itself cannot answer
    if world_size > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world_size}
        os.environ.update({k: str(v) for k, v in {**address, "LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": 0}.items()})
    try:
        function()
    except BaseException:  # shown now: the child has no other way to tell
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # without the parent's exit handlers
