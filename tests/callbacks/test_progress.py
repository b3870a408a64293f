"""The progress bar that the Trainer has anyway shows tasks, classes and the average accuracy; read off the screen."""

from __future__ import annotations

import copy
import io
import pickle
import re
import sys
from typing import Any

import pytest
import rich
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich.console import Console

from lightning_cl.callbacks import ContinualCheckpoint, ContinualEvaluation
from lightning_cl.datamodules.progress import TaskBar, describe_classes, describe_task
from lightning_cl.datamodules.task import Task

from .anytime_runs import fit, make_stream, offline

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((4,), "class 4"),
        ((2, 3), "classes 2, 3"),
        ((1, 5, 9), "classes 1, 5, 9"),
        (tuple(range(10, 20)), "classes 10-19"),
        ((1, 2, 3, 5), "4 classes"),
    ],
)
def test_classes_in_a_few_words(classes, text):
    assert describe_classes(classes) == text


def test_a_task_with_and_without_epochs():
    assert describe_task(Task(1, (2, 3), (2, 3), (0, 1, 2, 3), 5, 5), 5, 3) == "Task 1/4 (classes 2, 3), epoch 3/4"
    assert describe_task(Task(0, (7,), (7,), (7,), 0, 1, "stream"), 3, 0) == "Task 0/2 (class 7)"


def evaluation() -> ContinualEvaluation:
    return ContinualEvaluation(report=False, print_table=False)


class Screen(Callback):
    """Takes down what the Rich bar shows, at the end of every epoch, in its own console."""

    def __init__(self, width: int = 110) -> None:
        self.width, self.lines = width, list[str]()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        bar = trainer.progress_bar_callback
        console = Console(file=io.StringIO(), width=self.width, color_system=None)
        console.print(bar.progress.get_renderable())
        self.lines.append(console.file.getvalue().splitlines()[0])


def averages(measured: ContinualEvaluation) -> list[str]:
    matrix = measured.matrix()
    return [f"{100 * float(matrix[t, : t + 1].mean()):.1f}%" for t in range(len(matrix))]


def test_the_rich_bar_of_a_plain_trainer(monkeypatch):
    monkeypatch.setattr(rich, "_console", Console(file=io.StringIO(), force_terminal=True, width=110))
    screen, measured = Screen(), evaluation()
    _, trainer = fit(
        measured, RichProgressBar(), screen, stream=offline(), enable_progress_bar=True, num_sanity_val_steps=2
    )
    expected = [
        ("Task 0/2 (classes 0, 1), epoch 0/1", None),
        ("Task 0/2 (classes 0, 1), epoch 1/1", 0),
        ("Task 1/2 (classes 2, 3)", 1),
        ("Task 2/2 (classes 4, 5), epoch 0/1", None),
        ("Task 2/2 (classes 4, 5), epoch 1/1", 2),
    ]
    assert len(screen.lines) == len(expected)
    for line, (description, task) in zip(screen.lines, expected, strict=True):
        assert line.startswith(description + " ")
        assert "avg_acc: " in line
        if task is not None:
            assert f"avg_acc: {averages(measured)[task]}" in line
    assert type(trainer.progress_bar_callback).__name__ == "RichProgressBar"


def test_the_tqdm_bar(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    measured = evaluation()
    fit(measured, TQDMProgressBar(), stream=offline(), enable_progress_bar=True)
    shown = re.split(r"[\r\n]", out.getvalue())
    for text in ("Task 0/2 (classes 0, 1), epoch 1/1", "Task 1/2 (classes 2, 3)", "Task 2/2 (classes 4, 5), epoch 0/1"):
        assert any(line.startswith(f"{text}:") for line in shown), text
    last = [line for line in shown if line.startswith("Task 2/2 (classes 4, 5), epoch 1/1:")][-1]
    assert f"avg_acc={averages(measured)[2]}" in last
    assert not any(line.startswith("Epoch") and "100%" in line for line in shown)


class _Killed(Exception):
    pass


class KillAt(Callback):
    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 7:
            raise _Killed


@pytest.mark.parametrize("kind", [RichProgressBar, TQDMProgressBar])
def test_a_run_that_goes_on_inside_a_task_says_so(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(rich, "_console", Console(file=io.StringIO(), force_terminal=True, width=110))
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    def checkpoint() -> ContinualCheckpoint:
        return ContinualCheckpoint(dirpath=tmp_path, every_n_steps=2)

    with pytest.raises(_Killed):
        fit(evaluation(), checkpoint(), KillAt(), stream=make_stream())  # in task 1; saved at step 7, too
    screen = Screen() if kind is RichProgressBar else Callback()
    fit(
        evaluation(), checkpoint(), kind(), screen, stream=make_stream(), enable_progress_bar=True,
        ckpt_path=tmp_path / "last.ckpt",
    )  # fmt: skip
    lines = screen.lines if isinstance(screen, Screen) else re.split(r"[\r\n]", out.getvalue())
    first = next(line for line in lines if line.startswith("Task"))
    assert first.startswith("Task 1/2 (4 classes)") or first.startswith("Task 1/2 (classes 0-3)")
    assert "avg_acc" in (first if kind is RichProgressBar else lines[-2])


def test_without_a_bar_without_an_evaluation_and_with_a_bar_of_ones_own():
    fit(evaluation(), stream=make_stream(), enable_progress_bar=False)

    class Own(ProgressBar):
        texts: tuple[str, ...] = ()

        def disable(self) -> None: ...

        def enable(self) -> None: ...

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.texts += (str(self.get_metrics(trainer, pl_module).get("avg_acc")),)

    measured, bar = evaluation(), Own()
    fit(measured, bar, stream=offline(), enable_progress_bar=True)
    assert isinstance(bar, Own)
    assert bar.texts[-1] == averages(measured)[-1]
    bar = Own()
    fit(bar, stream=offline(), enable_progress_bar=True)
    assert set(bar.texts) == {"None"}


def test_a_bar_can_be_copied_and_pickled():
    bar = TQDMProgressBar()
    _, trainer = fit(bar, evaluation(), stream=offline(), enable_progress_bar=True, max_epochs=1)
    assert isinstance(trainer.progress_bar_callback, TaskBar)
    assert type(pickle.loads(pickle.dumps(bar))) is TQDMProgressBar
    assert type(copy.deepcopy(bar)) is TQDMProgressBar
    assert bar.state_key == TQDMProgressBar().state_key
