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
from terminal import Terminal

from lightning_cl.callbacks import ContinualCheckpoint, ContinualEvaluation
from lightning_cl.datamodules.progress import TaskBar, describe_classes, describe_task, within
from lightning_cl.datamodules.task import Task
from lightning_cl.reports import rich_table

from .anytime_runs import fit, make_stream, offline

pytestmark = pytest.mark.filterwarnings("ignore")


NAMES = ("cat", "dog", "a name that is much too long for a bar")


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((4,), "class 4"),
        ((1,), "class dog"),
        ((0, 1), "classes cat, dog"),
        ((3, 5, 9), "classes 3, 5, 9"),
        ((0, 2), "2 classes"),
        (tuple(range(10, 20)), "10 classes"),
    ],
)
def test_classes_in_a_few_words(classes, text):
    assert describe_classes(classes, NAMES) == text


def test_a_task_with_and_without_epochs_is_counted_from_one():
    task = Task(1, (2, 3), (2, 3), (0, 1, 2, 3), 5, 5)
    assert describe_task(task, 5, 3) == "Task 2 of 5, epoch 4 of 5"
    assert describe_task(task, 5, 3, ()) == "Task 2 of 5 (classes 2, 3), epoch 4 of 5"
    assert describe_task(Task(0, (7,), (7,), (7,), 0, 1, "stream"), 3, 0) == "Task 1 of 3"


def test_metrics_that_have_room():
    items = {"avg_acc": "92.8%", "val_acc": 0.5, "n": 3}
    assert within(items, 15 + 15 + 5) == items
    assert within(items, 15 + 15) == {"avg_acc": "92.8%", "val_acc": 0.5}
    assert within(items, 20) == {"avg_acc": "92.8%", "n": 3}
    assert within(items, -3) == {}


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
        ("Task 1 of 3 (classes 0, 1), epoch 1 of 2", None),
        ("Task 1 of 3 (classes 0, 1), epoch 2 of 2", 0),
        ("Task 2 of 3 (classes 2, 3)", 1),
        ("Task 3 of 3 (classes 4, 5), epoch 1 of 2", None),
        ("Task 3 of 3 (classes 4, 5), epoch 2 of 2", 2),
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
    texts = ("Task 1 of 3 (classes 0, 1), epoch 2 of 2", "Task 2 of 3 (classes 2, 3)")
    for text in (*texts, "Task 3 of 3 (classes 4, 5), epoch 1 of 2"):
        assert any(line.startswith(f"{text}:") for line in shown), text
    last = [line for line in shown if line.startswith("Task 3 of 3 (classes 4, 5), epoch 2 of 2:")][-1]
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
    assert first.startswith("Task 2 of 3 (4 classes)")
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


# ---------------------------------------------------------------------- what a person sees


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_nothing_of_the_result_is_erased_and_the_bar_is_one_line_and_gone(columns, monkeypatch):
    """In a pseudo-terminal, whose screen is put together from what was written to it."""
    measured, reports = ContinualEvaluation(report=False), list[Any]()
    build = measured.build_report
    monkeypatch.setattr(measured, "build_report", lambda *given: reports.append(build(*given)) or reports[-1])
    with Terminal(columns) as terminal:
        monkeypatch.setattr(sys, "stdout", terminal.file)
        for name, value in {"COLUMNS": str(columns), "LINES": "50", "TERM": "xterm"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(rich, "_console", None)
        fit(measured, RichProgressBar(), stream=offline(), enable_progress_bar=True)
    expected = Console(file=io.StringIO(), width=columns, color_system=None)
    expected.print(rich_table(reports[-1]))
    assert [line for line in terminal.lines() if line] == [
        line.rstrip() for line in expected.file.getvalue().splitlines() if line.strip()
    ]
    drawn = re.sub(r"\x1b\[[\d;]*m", "", terminal.written)
    bars = re.findall(r"Task 3 of 3[^\r\n\x1b]*", drawn)
    assert bars
    assert max(map(len, bars)) <= columns  # one line, also before it went
    assert ("classes 4, 5" in drawn) is (columns >= 80)
    assert "v_num" not in drawn


def test_without_a_terminal_the_bar_is_silent(capsys, monkeypatch):
    monkeypatch.setattr(rich, "_console", None)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    fit(evaluation(), RichProgressBar(), stream=offline(), enable_progress_bar=True)
    assert capsys.readouterr().out.strip() == ""
