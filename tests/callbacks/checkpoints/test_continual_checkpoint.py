"""ContinualCheckpoint writes often enough, completely or not at all, and says so when it cannot."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from stopping import BOUNDARIES, NoisyModule, fit, in_children, last
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualCheckpoint
from lightning_cl.callbacks.checkpoints import atomic_checkpoint_io, continual_checkpoint
from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import (
    AtomicCheckpointIO,
    CheckpointWriteError,
    clear_leftovers,
    is_complete,
    write_atomically,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run ends with that nothing stopped."""
    return fit(tmp_path_factory.mktemp("whole")).result()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Names and steps of the files, in the order in which they were written."""
    found: list[tuple[str, int]] = []
    write = AtomicCheckpointIO.save_checkpoint

    def spy(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        found.append((Path(path).stem, checkpoint["global_step"]))
        write(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", spy)
    return found


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def assert_same(resumed: dict[str, Any], whole: dict[str, Any]) -> None:
    assert_close(resumed, whole, rtol=0, atol=0)


# ---------------------------------------------------------------------- when


def test_every_few_steps_and_at_every_boundary(tmp_path, written):
    fit(tmp_path)
    boundaries = [[(f"task={t}", step), ("last", step)] for t, step in enumerate(BOUNDARIES)]
    between = [[("last", 3)], [("last", 7)], [("last", 10), ("last", 13)]]
    assert written == [entry for pair in zip(between, boundaries, strict=True) for part in pair for entry in part]
    assert names(tmp_path) == {"last.ckpt", "task=0.ckpt", "task=1.ckpt", "task=2.ckpt"}


def test_a_boundary_is_saved_after_its_evaluation(tmp_path):
    fit(tmp_path)
    for task in range(3):
        saved = torch.load(tmp_path / "checkpoints" / f"task={task}.ckpt", weights_only=True)
        state = next(state for key, state in saved["callbacks"].items() if "ContinualEvaluation" in key)
        assert [bool(row.sum()) for row in state["total"]] == [stage <= task for stage in range(3)]


def test_only_the_last(tmp_path, written):
    fit(tmp_path, checkpoint=ContinualCheckpoint(every_n_steps=100, keep_tasks=False))
    assert written == [("last", step) for step in BOUNDARIES]


def test_minutes(tmp_path, written, monkeypatch):
    """Two minutes of a clock that goes on by half a minute whenever it is looked at."""
    clock = iter(range(0, 100000, 30))
    monkeypatch.setattr(continual_checkpoint.time, "monotonic", lambda: next(clock))
    fit(tmp_path, checkpoint=ContinualCheckpoint(every_n_steps=100, every_n_minutes=2.0, keep_tasks=False))
    between = {step for _, step in written} - set(BOUNDARIES)
    assert between
    assert len(between) < 10


def test_the_end_of_a_run_that_ends_within_a_task(tmp_path, written):
    patient = EarlyStopping("val_loss", patience=1, min_delta=1e6)
    fit(tmp_path, [patient], checkpoint=ContinualCheckpoint(every_n_steps=100), stream={"epochs_per_task": 5})
    assert written == [("last", 4)]  # the loss never improves by that much, so the run ends after two epochs


def test_never_while_gradients_accumulate(tmp_path, written):
    options = {"accumulate_grad_batches": 3, "checkpoint": ContinualCheckpoint(every_n_steps=1)}
    whole = fit(tmp_path, **options).result()
    # Epochs of 2, 2, 3, 4 and 4 batches: only the last two have a batch that is followed by another step.
    assert [step for name, step in written if name == "last"] == [1, 2, 2, 3, 3, 4, 5, 6, 7, 7]
    fit(tmp_path, max_steps=6, **{**options, "checkpoint": ContinualCheckpoint(every_n_steps=1)})
    again = {**options, "checkpoint": ContinualCheckpoint(every_n_steps=1)}
    assert_same(fit(tmp_path, ckpt_path="last", **again).result(), whole)


def test_nothing_in_a_fast_dev_run(tmp_path):
    fit(tmp_path, fast_dev_run=1)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- resuming


@pytest.mark.parametrize("steps", [9, 14], ids=["within-a-task", "within-the-last-epoch-of-a-task"])
def test_last_is_found_and_resumes_with_the_same_bits(tmp_path, whole, written, steps):
    fit(tmp_path, max_steps=steps)
    assert written[-1] == ("last", steps)
    assert "task=2.ckpt" not in names(tmp_path)
    assert_same(fit(tmp_path, ckpt_path="last").result(), whole)
    assert last(tmp_path)["global_step"] == 15


@pytest.mark.parametrize("task", [0, 1])
def test_from_a_boundary(tmp_path, whole, task):
    fit(tmp_path)
    resumed = fit(tmp_path / "again", ckpt_path=tmp_path / "checkpoints" / f"task={task}.ckpt")
    assert_same(resumed.result(), whole)
    assert "last.ckpt" in names(tmp_path / "again")


def test_a_broken_file_is_passed_over(tmp_path, whole):
    fit(tmp_path, max_steps=5)
    folder = tmp_path / "checkpoints"
    good = (folder / "last.ckpt").read_bytes()
    (folder / "last-v1.ckpt").write_bytes(good)
    (folder / "last.ckpt").write_bytes(good[: len(good) // 2])
    assert not is_complete(folder / "last.ckpt")
    assert not is_complete(folder / "none.ckpt")
    with pytest.warns(match=r"last\.ckpt was not written to its end and is passed over"):
        assert_same(fit(tmp_path, ckpt_path="last").result(), whole)


@pytest.mark.parametrize("beside", [True, False])
def test_a_damaged_file_is_passed_over_in_favour_of_an_older_one(tmp_path, whole, beside):
    """Half a byte in the middle of a weight, in the newest file of a run that was stopped behind its first task."""
    fit(tmp_path, max_steps=5)
    path = tmp_path / "checkpoints" / "last.ckpt"
    weight = torch.load(path, weights_only=True)["state_dict"]["net.1.weight"].numpy().tobytes()
    data = path.read_bytes()
    assert data.count(weight) == 1
    path.write_bytes(data.replace(weight, weight[:9] + bytes([weight[9] ^ 0xF0]) + weight[10:]))
    if not beside:
        (path.parent / "task=0.ckpt").unlink()
    words = r"and is passed over in favour of .*task=0\.ckpt" if beside else r"last\.ckpt is not as .* passed over\."
    with pytest.warns(match=words):
        assert_same(fit(tmp_path, ckpt_path="last").result(), whole)


def test_the_trainer_finds_the_file_after_the_fit(tmp_path):
    run = fit(tmp_path)
    assert run.trainer.checkpoint_callback.best_model_path == str(tmp_path / "checkpoints" / "last.ckpt")
    assert run.trainer.test(datamodule=run.trainer.datamodule, verbose=False)


# ---------------------------------------------------------------------- killed in the middle of a write


def kill_in(step: str, write: int) -> None:
    """From now on, the ``write``-th file is the last thing this process does."""
    count = 0

    def replacement(*args: Any) -> None:
        nonlocal count
        if step == "sync":  # fsync is for the file, then for the folder
            count += os.path.isfile(f"/proc/self/fd/{args[0]}")
        else:
            count += 1
        if count == write:
            if step == "sync":
                os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
            if step == "after":
                original(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args)

    name = "fsync" if step == "sync" else "replace"
    original = getattr(os, name)
    setattr(atomic_checkpoint_io.os, name, replacement)


@pytest.mark.parametrize("step", ["sync", "before", "after"])
def test_a_kill_in_the_middle_of_a_write_leaves_the_file_before(tmp_path, whole, step):
    def run() -> None:
        kill_in(step, write=5)  # 3, task 0, 4, 7, and now task 1
        fit(tmp_path, checkpoint=ContinualCheckpoint(every_n_steps=3, keep_tasks=False))

    assert in_children(run) == [-signal.SIGKILL]
    # Files without the tasks' own: 3, 4, 7, 7 and 10.
    assert last(tmp_path)["global_step"] == (10 if step == "after" else 7)
    assert (len(names(tmp_path)) == 1) == (step == "after")  # else the unfinished file is there too
    assert_same(fit(tmp_path, ckpt_path="last").result(), whole)
    assert all(name.endswith(".ckpt") for name in names(tmp_path))


def test_leftovers_of_the_dead_are_cleared_and_those_of_the_living_stay(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    host = socket.gethostname()
    dead, mine = tmp_path / f"last.ckpt.{host}-{child.pid}.tmp", tmp_path / f"last.ckpt.{host}-{os.getpid()}.tmp"
    alive, far = tmp_path / f"task=1.ckpt.{host}-{os.getppid()}.tmp", tmp_path / "last.ckpt.else.where-1.tmp"
    far_and_old, others = tmp_path / "task=0.ckpt.elsewhere-1.tmp", tmp_path / "notes.tmp"
    for path in (dead, mine, alive, far, far_and_old, others):
        path.touch()
    os.utime(far_and_old, (0, 0))
    assert set(clear_leftovers(tmp_path)) == {dead, mine, far_and_old}
    assert set(tmp_path.iterdir()) == {alive, far, others}
    assert clear_leftovers(tmp_path / "none") == []


# ---------------------------------------------------------------------- disks that refuse


def full_disk(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path, whole, monkeypatch, capfd):
    """A real refusal of the system: a file of the process may not grow beyond half a checkpoint."""

    def run() -> None:
        fit(tmp_path, max_steps=3)
        size = (tmp_path / "checkpoints" / "last.ckpt").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size))
        fit(tmp_path, ckpt_path="last")

    assert in_children(run) == [99]
    message = capfd.readouterr().err
    path = tmp_path / "checkpoints" / "task=0.ckpt"
    assert f"CheckpointWriteError: cannot write the checkpoint {path}: File too large (0.0 MB needed, " in message
    assert " MB free). The run stops" in message
    assert "free some space, or save to another folder with `ContinualCheckpoint(dirpath=...)`" in message
    assert f'ckpt_path="{tmp_path / "checkpoints" / "last.ckpt"}"' not in message  # nothing of this run to go on from
    assert names(tmp_path) == {"last.ckpt"}
    assert last(tmp_path)["global_step"] == 3
    assert_same(fit(tmp_path, ckpt_path="last").result(), whole)


def test_a_disk_that_fills_up_half_way(tmp_path, monkeypatch):
    fit(tmp_path, max_steps=5)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    monkeypatch.setattr(atomic_checkpoint_io.os, "fsync", full_disk)
    with pytest.raises(CheckpointWriteError, match=r"No space left on device .* The last\.ckpt that was .* is intact"):
        fit(tmp_path, checkpoint=ContinualCheckpoint(every_n_steps=1), ckpt_path="last")
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before
    assert names(tmp_path) == {"last.ckpt", "task=0.ckpt"}


def test_a_folder_that_cannot_be_made_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    checkpoint = ContinualCheckpoint(dirpath=tmp_path / "file" / "folder")
    module = NoisyModule()
    with pytest.raises(CheckpointWriteError, match=r"cannot write the checkpoint .*/file/folder/last\.ckpt: .* make "):
        fit(tmp_path, checkpoint=checkpoint, make_module=lambda: module)
    assert module.trainer.global_step == 0


def test_processes_fail_together_when_the_first_cannot_write(tmp_path, capfd):
    def run() -> None:
        if os.environ["RANK"] == "0":
            atomic_checkpoint_io.os.fsync = full_disk
        fit(tmp_path, devices=2, strategy="ddp")

    assert in_children(run, count=2) == [99, 99]
    assert capfd.readouterr().err.count("CheckpointWriteError: cannot write the checkpoint") == 2


def test_only_the_first_process_writes(tmp_path):
    def run() -> None:
        writes: list[Path] = []
        original = atomic_checkpoint_io.write_atomically
        atomic_checkpoint_io.write_atomically = lambda path, data: writes.append(path) or original(path, data)
        fit(tmp_path, devices=2, strategy="ddp")
        (tmp_path / f"{os.environ['RANK']}-{len(writes)}").touch()

    assert in_children(run, count=2) == [0, 0]
    assert (tmp_path / "0-10").exists()
    assert (tmp_path / "1-0").exists()


# ---------------------------------------------------------------------- a loss that is not finite


class Diverging(NoisyModule):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.trainer.global_step == 5 else loss


@pytest.mark.parametrize("every", [1, 3])
def test_a_bad_step_is_never_saved(tmp_path, whole, every, capsys):
    with pytest.raises(FloatingPointError, match="optimiser step 6"):
        fit(tmp_path, checkpoint=ContinualCheckpoint(every_n_steps=every), make_module=Diverging)
    good = 5 if every == 1 else 4
    assert last(tmp_path)["global_step"] == good
    assert all(bool(torch.isfinite(weight).all()) for weight in last(tmp_path)["state_dict"].values())
    hint = capsys.readouterr().err
    assert "stopped by FloatingPointError in epoch 2 of 5 (task 2 of 3), step 6. Continue from the checkpoint" in hint
    assert f"of step {good} with" in hint
    assert_same(fit(tmp_path, ckpt_path="last").result(), whole)


class DivergingOnOne(NoisyModule):
    """As where overflow hits the share of one process only."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        bad = self.trainer.global_step == 5 and self.trainer.global_rank == 1
        return loss * float("nan") if bad else loss


def test_processes_stop_together_at_a_loss_that_is_bad_in_one_of_them(tmp_path, capfd):
    checkpoint = ContinualCheckpoint(every_n_steps=1)
    run = partial(fit, tmp_path, make_module=DivergingOnOne, checkpoint=checkpoint, devices=2, strategy="ddp")
    assert in_children(run, count=2) == [99, 99]
    assert last(tmp_path)["global_step"] == 5
    assert capfd.readouterr().err.count("FloatingPointError: the training loss is not finite in task 1") == 2


def test_an_error_in_one_process_does_not_leave_the_other_waiting(tmp_path, capfd):
    def fail(trainer: Any, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 5:
            raise ConnectionAbortedError("only here")

    callback = LambdaCallback(on_train_batch_start=fail)
    assert in_children(partial(fit, tmp_path, [callback], devices=2, strategy="ddp"), count=2) == [99, 99]
    assert last(tmp_path)["global_step"] == 4


# ---------------------------------------------------------------------- other ways to write


def test_asynchronous_writes_are_atomic_too(tmp_path, whole):
    plugin = AsyncCheckpointIO()
    assert_same(fit(tmp_path, plugins=[plugin]).result(), whole)
    assert isinstance(plugin.checkpoint_io, AtomicCheckpointIO)
    assert names(tmp_path) == {"last.ckpt", "task=0.ckpt", "task=1.ckpt", "task=2.ckpt"}
    assert last(tmp_path)["global_step"] == 15
    assert_same(fit(tmp_path / "again", ckpt_path=tmp_path / "checkpoints" / "task=1.ckpt").result(), whole)


def test_an_asynchronous_write_that_fails_is_not_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_checkpoint_io.os, "fsync", full_disk)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        fit(tmp_path, plugins=[AsyncCheckpointIO()])


def test_a_plugin_of_the_user_stays(tmp_path):
    class Own(TorchCheckpointIO):
        saved: list[str] = []  # noqa: RUF012

        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            self.saved.append(Path(path).name)
            super().save_checkpoint(checkpoint, path, storage_options)

    fit(tmp_path, plugins=[own := Own()])
    assert own.saved.count("last.ckpt") == 7
    assert last(tmp_path)["global_step"] == 15


def test_a_remote_folder(tmp_path, whole):
    checkpoint = ContinualCheckpoint(dirpath="memory://runs/one", every_n_steps=3)
    fit(tmp_path, checkpoint=checkpoint, max_steps=9)
    assert sorted(Path(path).name for path in MemoryFileSystem.store) == ["last.ckpt", "task=0.ckpt", "task=1.ckpt"]
    again = ContinualCheckpoint(dirpath="memory://runs/one", every_n_steps=3)
    assert_same(fit(tmp_path, checkpoint=again, ckpt_path="memory://runs/one/last.ckpt").result(), whole)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.ckpt", b"old")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_checkpoint_io.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.ckpt", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


# ---------------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "`every_n_steps` is 0; give a number of optimiser steps of at least 1"),
        ({"every_n_steps": 2.5}, r"`every_n_steps` is 2\.5"),
        ({"every_n_steps": True}, "`every_n_steps` is True"),
        ({"every_n_minutes": 0}, "`every_n_minutes` is 0; give minutes above 0, or None"),
        ({"every_n_minutes": float("nan")}, "`every_n_minutes` is nan"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ContinualCheckpoint(**options)


def test_without_a_stream(tmp_path):
    from datamodules.tiny_stream import make_trainer

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(4, 8, 8), torch.zeros(4).long()))
    with pytest.raises(ValueError, match="ContinualCheckpoint needs a stream"):
        make_trainer(tmp_path, [ContinualCheckpoint()]).fit(NoisyModule(), loader)
