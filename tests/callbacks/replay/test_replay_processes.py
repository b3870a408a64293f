"""Replay on several processes, after power cuts, and in another fit."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from conformance.runs import assert_same_bits, in_forked_processes
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from nn.replay.loops import assert_same_state
from torch.testing import assert_close

from .replay_runs import (
    Steps,
    as_dict,
    fit,
    make_stream,
    replay,
    result,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("store", "policy", "online"),
    [
        ("index", "reservoir", True),
        ("sample", "class_balanced", True),
        ("sample", "reservoir", False),
        ("index", "ring", False),
    ],
)
def test_two_processes_equal_one(store, policy, online, tmp_path):
    def run(**trainer):
        method = replay(store=store, policy=policy)
        stream = make_stream(online, augment="crop", collate_fn=as_dict)
        ended = fit(method, stream=stream, precision="64-true", **trainer)
        return ended, {"weights": result(ended), "replay": method.state_dict()}

    def rank() -> None:
        ended, left = run(strategy="ddp", devices=2)
        torch.save(left, tmp_path / f"rank{ended.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = run()[1]
    for left in (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1)):
        assert_same_state(left["replay"], expected["replay"])
        assert_close(left["weights"], expected["weights"], rtol=1e-6, atol=1e-8)


class Abort(Callback):
    """Kills the process in the first step after ``step``."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step > self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("step", "store", "policy"),  # of 27 steps: nine batches, three updates each
    [(1, "sample", "reservoir"), (4, "index", "reservoir"), (8, "sample", "class_balanced"), (13, "index", "ring")],
)
def test_a_killed_run_goes_on_with_the_same_bits(step, store, policy, tmp_path):
    def run(*callbacks, ckpt_path=None):
        method, steps = replay(store=store, policy=policy), Steps()
        stream = make_stream(updates_per_batch=3, augment="crop")
        ended = fit(method, steps, *callbacks, stream=stream, dropout=0.3, ckpt_path=ckpt_path)
        return result(ended), method.state_dict(), steps

    def killed() -> None:
        run(Abort(step), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=step, save_top_k=-1))

    assert in_forked_processes(killed) == [-signal.SIGKILL]
    weights, memory, steps = run(ckpt_path=tmp_path / f"step={step}.ckpt")
    whole = run()
    assert_same_bits(weights, whole[0])
    assert_same_state(memory, whole[1])
    assert steps.losses == whole[2].losses[step:]


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    def run(*callbacks, **options):
        method = replay(store="sample")
        stream = make_stream(augment="crop")
        ended = fit(method, *callbacks, stream=stream, precision="64-true", **options)
        return ended, {"weights": result(ended), "replay": method.state_dict()}

    def rank() -> None:
        ended, left = run(strategy="ddp", devices=2, ckpt_path=tmp_path / "step=9.ckpt")
        torch.save(left, tmp_path / f"rank{ended.global_rank}.pt")

    expected = run(ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=9, save_top_k=-1))[1]
    assert in_forked_processes(rank, count=2) == [0, 0]
    left = torch.load(tmp_path / "rank1.pt", weights_only=True)
    assert_same_state(left["replay"], expected["replay"])
    assert_close(left["weights"], expected["weights"], rtol=1e-6, atol=1e-8)


def test_an_aborted_fit_leaves_nothing_joined():
    class Failing(Callback):
        def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                raise ConnectionAbortedError

    stream, steps = make_stream(), Steps()
    with pytest.raises(ConnectionAbortedError):
        fit(replay(), Failing(), stream=stream)
    assert stream.joined is not None
    fit(replay(), steps, stream=stream)
    assert steps.joined[0] is None


def test_every_fit_starts_with_an_empty_memory_unless_it_continues_one():
    method = replay()
    first, second = Steps(), Steps()
    fit(method, first)
    held = method.memory.buffer.labels.clone()
    fit(method, second)
    assert [b[1].tolist() for b in first.batches] == [b[1].tolist() for b in second.batches]
    assert torch.equal(method.memory.buffer.labels, held)

    method, steps, stream = replay(), Steps(), make_stream()
    trainer = fit(method, steps, stream=stream, max_epochs=2)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(trainer.lightning_module, datamodule=stream)
    assert [b[1].tolist() for b in steps.batches] == [b[1].tolist() for b in first.batches]
    trainer.validate(trainer.lightning_module, datamodule=stream, verbose=False)
    assert torch.equal(method.memory.buffer.labels, held)
