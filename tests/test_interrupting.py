"""SIGTERM and Ctrl-C: the run stops after the step that it is in, leaves it on the disk, and can go on from it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import SignalAt, WaitForSignal, fit, in_children, last, wait_for
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualCheckpoint
from lightning_cl.callbacks.checkpoints import stop_signals

pytestmark = pytest.mark.filterwarnings("ignore")

TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)
#: Lightning ends the process itself after Ctrl-C.
EXIT_CODE = {TERM: 143, INT: 1}
DDP: dict[str, Any] = {"devices": 2, "strategy": "ddp"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return fit(tmp_path_factory.mktemp("whole")).result()


def rare() -> ContinualCheckpoint:
    """Writes at boundaries only, unless it is told to stop."""
    return ContinualCheckpoint(every_n_steps=1000, every_n_minutes=None)


def assert_goes_on(folder: Path, whole: dict[str, Any], **options: Any) -> None:
    assert_close(fit(folder, ckpt_path="last", **options).result(), whole, rtol=0, atol=0)


# ---------------------------------------------------------------------- one process


@pytest.mark.parametrize(
    ("number", "step"),
    [(TERM, 0), (INT, 0), (TERM, 3), (INT, 5)],
    ids=["sigterm-first-step", "sigint-first-step", "sigterm-last-step-of-a-task", "sigint-mid-epoch"],
)
def test_the_step_is_finished_and_saved(tmp_path, whole, capfd, number, step):
    assert in_children(lambda: fit(tmp_path, [SignalAt(step, number)], checkpoint=rare())) == [EXIT_CODE[number]]
    assert last(tmp_path)["global_step"] == step + 1
    message = capfd.readouterr().err
    assert message.count("Stopping after this batch, with a checkpoint; press Ctrl-C again to stop at once.") == 1
    place = r"interrupted in epoch \d of 5 \(task \d of \d\), step (\d+)"
    said = re.search(place + r'\. Continue .* ckpt_path="(.*)"\)`', message)
    assert said
    assert int(said[1]) == step + 1
    assert said[2] == str(tmp_path / "checkpoints" / "last.ckpt")
    assert message.count("Continue") == 1
    assert_goes_on(tmp_path, whole)


@pytest.mark.parametrize("number", [TERM, INT], ids=["sigterm", "sigint"])
def test_a_signal_from_outside(tmp_path, whole, number):
    def send(pids: list[int]) -> None:
        wait_for(lambda: any(tmp_path.glob("ready-*")))
        os.kill(pids[0], number)

    codes = in_children(lambda: fit(tmp_path, [WaitForSignal(tmp_path, 8)], checkpoint=rare()), during=send)
    assert codes == [EXIT_CODE[number]]
    assert last(tmp_path)["global_step"] == 9
    assert_goes_on(tmp_path, whole)


def test_in_a_validation(tmp_path, whole):
    """It is not finished: the resumed run makes all of it."""
    run = lambda: fit(tmp_path, [SignalAt(7, TERM, where="validation"), Shout(tmp_path)], checkpoint=rare())  # noqa: E731
    assert in_children(run) == [143]
    assert last(tmp_path)["global_step"] == 7
    assert (tmp_path / "validations").read_text() == "2 2 "  # of epochs 0 and 1; not that of epoch 2
    assert "task=1.ckpt" not in {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert_goes_on(tmp_path, whole)


class Shout(SignalAt):
    """Writes down the validations that end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(-1)
        self.folder = folder

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        with (self.folder / "validations").open("a") as file:
            file.write(f"{trainer.num_val_batches[0]} ")


def test_in_the_sanity_check_nothing_is_lost(tmp_path):
    run = lambda: fit(tmp_path, [SignalAt(0, TERM, where="sanity")], num_sanity_val_steps=2)  # noqa: E731
    assert in_children(run) == [143]
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_in_the_middle_of_an_accumulation(tmp_path):
    options: dict[str, Any] = {"accumulate_grad_batches": 2}
    whole = fit(tmp_path / "whole", **options).result()
    run = lambda: fit(tmp_path, [SignalAt(5, INT)], checkpoint=rare(), **options)  # noqa: E731
    assert in_children(run) == [1]
    assert last(tmp_path)["global_step"] == 6  # sent at the first batch of the step, obeyed after the second
    assert_goes_on(tmp_path, whole, **options)


@pytest.mark.slow
def test_stopped_again_and_again(tmp_path, whole):
    for step in (2, 3, 9, 14):
        options = {"callbacks": [SignalAt(step, TERM)], "ckpt_path": "last" if step > 2 else None}
        assert in_children(partial(fit, tmp_path, checkpoint=rare(), **options)) == [143]
        assert last(tmp_path)["global_step"] == step + 1
    assert_goes_on(tmp_path, whole)


def test_a_second_press_stops_at_once(tmp_path, capfd):
    def run() -> None:
        stop_signals._ONE_PRESS = 0.0
        fit(tmp_path, [SignalAt(5, INT, INT)], checkpoint=rare())

    assert in_children(run) == [1]
    assert last(tmp_path)["global_step"] == 4  # the boundary; step 6 was cut off
    where = "interrupted in epoch 2 of 5 (task 2 of 3), step 5. Continue from the checkpoint of step 4"
    assert where in capfd.readouterr().err


def test_launchers_double_a_press(tmp_path):
    """The terminal has sent it to all of them already; SIGTERM never counts as a second press."""
    assert in_children(lambda: fit(tmp_path, [SignalAt(5, INT, INT)], checkpoint=rare())) == [1]
    assert last(tmp_path)["global_step"] == 6
    assert in_children(lambda: fit(tmp_path, [SignalAt(7, TERM, TERM, TERM)], checkpoint=rare())) == [143]
    assert last(tmp_path)["global_step"] == 8


def test_handlers_come_back_and_those_of_the_user_are_called(tmp_path):
    def run() -> None:
        called: list[int] = []
        mine = lambda number, frame: called.append(number)  # noqa: E731
        signal.signal(signal.SIGTERM, mine)
        try:
            fit(tmp_path, [SignalAt(5, TERM)], checkpoint=rare())
        except SystemExit:
            assert called == [TERM]
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            signal.signal(signal.SIGINT, mine)  # one for Ctrl-C keeps it to itself
            fit(tmp_path, [SignalAt(5, INT)], checkpoint=rare())
            assert called == [TERM, INT]
            assert last(tmp_path)["global_step"] == 15
        else:
            raise AssertionError("was not stopped")

    assert in_children(run) == [0]


def test_workers_leave_ctrl_c_to_their_parent(tmp_path, whole):
    """A terminal sends it to the whole group."""

    def run() -> None:
        os.setpgrp()
        fit(tmp_path, [GroupSignal(5)], checkpoint=rare(), stream={"num_workers": 1})

    assert in_children(run) == [1]
    assert last(tmp_path)["global_step"] == 6
    assert_goes_on(tmp_path, whole)


class GroupSignal(SignalAt):
    def _send(self, trainer: Any, where: str) -> None:
        if where == "train" and trainer.global_step == self.step and not self.sent:
            self.sent = True
            os.killpg(0, signal.SIGINT)
            time.sleep(0.05)


# ---------------------------------------------------------------------- two processes


@pytest.mark.parametrize(
    ("number", "rank"),
    [
        pytest.param(TERM, None, id="sigterm-to-both"),
        pytest.param(TERM, 0, id="sigterm-to-the-first", marks=pytest.mark.slow),
        pytest.param(TERM, 1, id="sigterm-to-the-second"),
        pytest.param(INT, None, id="sigint-to-both"),
        pytest.param(INT, 1, id="sigint-to-the-second", marks=pytest.mark.slow),
    ],
)
def test_processes_stop_after_the_same_step(tmp_path, capfd, number, rank):
    """Whichever of them is told; a process that waits for another is ended by the watchdog, which is a failure."""
    run = lambda: fit(tmp_path, [SignalAt(5, number, rank=rank)], checkpoint=rare(), **DDP)  # noqa: E731
    assert in_children(run, count=2) == [EXIT_CODE[number]] * 2
    assert last(tmp_path)["global_step"] == 6
    assert capfd.readouterr().err.count("Continue from the checkpoint of step 6") == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 6], ids=["mid-epoch", "last-step-of-a-task"])
def test_processes_go_on_with_the_same_bits(tmp_path, step):
    def run(folder: Path, **options: Any) -> Any:
        return lambda: torch.save(fit(folder, **DDP, **options).result(), folder / f"{os.environ['RANK']}.pt")

    (tmp_path / "whole").mkdir()
    assert in_children(run(tmp_path / "whole"), count=2) == [0, 0]
    assert in_children(run(tmp_path, callbacks=[SignalAt(step, TERM, rank=1)]), count=2) == [143, 143]
    assert last(tmp_path)["global_step"] == step + 1
    assert in_children(run(tmp_path, ckpt_path="last"), count=2) == [0, 0]
    for rank in (0, 1):
        resumed, expected = (torch.load(folder / f"{rank}.pt") for folder in (tmp_path, tmp_path / "whole"))
        assert_close(resumed, expected, rtol=0, atol=0)


def test_processes_stop_in_a_validation(tmp_path):
    """They agree before every tenth batch of it; here there is a first one only."""
    run = lambda: fit(tmp_path, [SignalAt(7, TERM, where="validation", rank=1)], checkpoint=rare(), **DDP)  # noqa: E731
    assert in_children(run, count=2) == [143, 143]
    assert last(tmp_path)["global_step"] == 7


# ---------------------------------------------------------------------- the command line


#: One epoch of 18 steps a task; the process that is killed has two tasks left to do.
SHORT = (
    *("--data.epochs_per_task", "1", "--trainer.check_val_every_n_epoch", "1"),
    *("--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"),
)
FIT = (sys.executable, "-m", "lightning_cl.cli", "fit", "--config", "digits_finetune", *SHORT)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*FIT, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, errors


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "continual_report.json").read_text())
    return content


@pytest.mark.slow
def test_the_command_is_stopped_killed_and_continued(tmp_path):
    """SIGTERM, then Ctrl-C, then SIGKILL; the report is that of a run that nothing stopped."""
    (tmp_path / "whole").mkdir()
    code, errors = finish(start(tmp_path / "whole"))
    assert code == 0, errors
    runs = tmp_path / "runs" / "digits_finetune"
    expected = {"TERM": 143, "INT": 130, "KILL": -9}
    for version, (name, exit_code) in enumerate(expected.items()):
        process = start(tmp_path, *(["--ckpt_path", "last"] if version else []))
        checkpoints = runs / f"version_{version}" / "checkpoints"
        boundary = checkpoints / f"task={version}.ckpt"
        wait_for(lambda path=boundary, child=process: path.exists() or child.poll() is not None)
        process.send_signal(getattr(signal, f"SIG{name}"))
        code, errors = finish(process)
        assert code == exit_code, errors
        if name != "KILL":
            line = errors.strip().splitlines()[-1]
            assert f"Continue with `--ckpt_path {(checkpoints / 'last.ckpt').relative_to(tmp_path)}`" in line
            assert errors.count("Continue with") == 1
    code, errors = finish(start(tmp_path, "--ckpt_path", "last"))
    assert code == 0, errors
    assert f"Checkpoint: {(runs / 'version_2' / 'checkpoints').relative_to(tmp_path)}" in errors
    assert report(runs / "version_3") == report(tmp_path / "whole" / "runs" / "digits_finetune" / "version_0")


def test_the_command_passes_over_broken_files(tmp_path, monkeypatch):
    from jsonargparse import Namespace

    from lightning_cl.cli.checkpoints import last_checkpoint
    from lightning_cl.cli.configs import UsageError

    monkeypatch.chdir(tmp_path)
    old, new = (Path(f"runs/one/version_{version}/checkpoints") for version in (0, 1))
    for age, path in enumerate((new / "last.ckpt", new / "task=0.ckpt", old / "last.ckpt")):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({}, path)
        os.utime(path, (1e9 - age, 1e9 - age))
    content = (new / "last.ckpt").read_bytes()
    (new / "last.ckpt").write_bytes(content[: len(content) // 2])
    leftover = new / f"last.ckpt.{socket.gethostname()}-{os.getpid()}.tmp"
    leftover.touch()
    trainer = Namespace(logger=Namespace(class_path="CSVLogger", init_args=Namespace(save_dir="runs", name="one")))
    with pytest.warns(match=r"version_1/checkpoints/last\.ckpt was not written to its end and is passed over"):
        assert last_checkpoint(trainer) == f"{new}/task=0.ckpt"
    assert not leftover.exists()
    (new / "task=0.ckpt").unlink()
    with pytest.warns(match="passed over"):
        assert last_checkpoint(trainer) == f"{old}/last.ckpt"
    (old / "last.ckpt").write_bytes(b"")
    with pytest.warns(match="passed over"), pytest.raises(UsageError, match="found no checkpoint in runs/one; start"):
        last_checkpoint(trainer)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"logger": False}, "checkpoints"),
        ({"logger": False, "default_root_dir": "elsewhere"}, "elsewhere/checkpoints"),
        ({"logger": None}, "lightning_logs/version_3/checkpoints"),
        ({"logger": {"save_dir": "runs", "name": "one"}}, "runs/one/version_0/checkpoints"),
        ({"logger": {"save_dir": "runs", "project": "one", "name": "pretty"}}, "runs/one/x1y2/checkpoints"),
        ({"logger": {"save_dir": "runs"}}, "runs/12/ab/checkpoints"),
        ({"logger": False, "callbacks": [{"dirpath": "mine"}]}, "mine"),
    ],
)
def test_where_the_command_looks(tmp_path, monkeypatch, config, found):
    from jsonargparse import Namespace

    from lightning_cl.cli.checkpoints import last_checkpoint

    monkeypatch.chdir(tmp_path)
    Path(found).mkdir(parents=True)
    torch.save({}, Path(found, "last.ckpt"))
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    torch.save({}, tmp_path / "other" / "checkpoints" / "last.ckpt")
    wrap = lambda value: Namespace(class_path="x", init_args=Namespace(**value)) if isinstance(value, dict) else value  # noqa: E731
    options = {**config, "logger": wrap(config["logger"]), "callbacks": [wrap(c) for c in config.get("callbacks", [])]}
    assert last_checkpoint(Namespace(**options)) == f"{found}/last.ckpt"
