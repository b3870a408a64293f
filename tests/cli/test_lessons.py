"""The commands ``learn``, ``predict`` and ``export``: what they print and refuse, and a whole life of a model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from documented import ROOT
from lifelong.digit_folders import NAMES, write_digits

from lightning_cl.cli import main
from lightning_cl.cli.lessons import pair, summary
from lightning_cl.cli.predictions import given_paths, is_folder_call
from lightning_cl.lifelong import Taught

pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_a_call_says():
    taught = Taught(3, ["a", "b"], ["b"], 9, 2, 0.915, 0.8, 0.9, ["one thing"])
    assert summary(taught, Path("birds")) == [
        "Version 3 of birds: learned 2 classes from 9 images (new: b; again: a).",
        "Accuracy 91.5 % on all held-out images that are there.",
        "On what it knew before: 80.0 %, after 90.0 % when that was learned.",
        "Note: one thing.",
        "Report: birds/report; `--to 2` undoes this.",
    ]
    assert pair("a=b=c", "rename") == ("a", "b=c")


def test_paths_come_from_words_and_from_standard_input():
    assert given_paths(["x", "-", "y"], io.StringIO("a\n\nb c\n").read) == ["x", "a", "b c", "y"]
    assert [is_folder_call(words) for words in ([], ["m", "x.png"], ["--config", "c"], ["-c", "c"])] == [
        True, True, False, False,
    ]  # fmt: skip


def test_learn_predict_and_export(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_digits(Path("month1"), (0, 1), 8)
    write_digits(Path("month2"), (2,), 8)
    assert main(["learn", "month1", "--into", "m", "--method", "PrototypeClassifier"]) == 0
    assert "Version 1 of m: learned 2 classes from 12 images (new: one, zero)." in capsys.readouterr().out
    assert main(["learn", "month2", "--into", "m", "--rename", "two=deux"]) == 0
    assert main(["learn", "--into", "m", "--forget", "zero"]) == 0
    capsys.readouterr()
    image = str(next(Path("month2/two").iterdir()))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{image}\n"))
    assert main(["predict", "m", "-", "--format", "jsonl", "--top", "1"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["image"] == image
    assert list(line["probabilities"]) == [line["class"]] == ["deux"]
    assert main(["predict", "m", image, "month1", "--format", "csv"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "image,class,one,deux"
    assert len(rows) == 17
    assert main(["predict", "m", image, "--version", "2"]) == 0
    assert capsys.readouterr().out.startswith(f"{image}  deux ")
    assert main(["export", "m", "--format", "safetensors"]) == 0
    assert capsys.readouterr().out == "Exported version 3 with 2 classes: m/model.safetensors\n"
    assert main(["learn", "--into", "m", "--to", "1"]) == 0
    assert capsys.readouterr().out == "m is at version 1: one, zero.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learn", "data"], "needs a model folder"),
        (["learn", "a", "b", "--into", "m"], "takes one folder"),
        (["learn", "--into", "nothing"], "there is no model in nothing; make one"),
        (["learn", "nowhere", "--into", "m"], "'nowhere' is not a folder"),
        (["learn", "one", "--into", "m"], "one has one class, 'seven'"),
        (["learn", "one", "--into", "m", "--method", "PrototypeClasifier"], "no `PrototypeClasifier` to import"),
        (["learn", "one", "--into", "m", "--rename", "x"], "give OLD=NEW"),
        (["learn", "one", "--into", "m", "--forget", "x"], "`--forget` changes the model, and data teach it"),
        (["learn", "one", "--into", "m", "--merge", "x=y", "--rename", "a=b"], "`--merge` changes the model"),
        (
            ["learn", "--into", "m", "--to", "1", "--rename", "x=y"],
            "a version and `--rename` makes one",
        ),
        (["predict", "nothing", "x.png"], "nothing is no model folder"),
        (["predict", "nothing"], "`predict` needs images"),
        (["export", "nothing"], "nothing is no model folder"),
        (["learn", "one", "--into", "m", "--to", "1"], "there is no model in m"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write_digits(Path("one"), (7,), 2)
    if "--to" in words:
        words = [word for word in words if word != "one"]
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not Path("m").exists()


# ---------------------------------------------------------------------- a whole life, as a user would have it


def command(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_cl", *words], capture_output=True, text=True, check=False, env=environment()
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


@pytest.mark.slow
def test_three_months_with_a_kill_a_way_back_predictions_and_an_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for month, classes in enumerate(((0, 1, 2, 3), (4, 5, 6), (7, 8, 9)), 1):
        write_digits(Path(f"month{month}"), classes, per_class=None)
    command("learn", "month1", "--into", "digits")
    killed = subprocess.Popen(
        [sys.executable, "-m", "lightning_cl", "learn", "month2", "--into", "digits"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not Path("digits/unfinished/start.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert json.loads(Path("digits/model.json").read_text())["versions"] == [1]
    assert "zero" in command("predict", "digits", "month1/zero")  # version 1 serves on
    command("learn", "month2", "--into", "digits")
    said = command("learn", "month3", "--into", "digits")
    accuracy = float(said.split("Accuracy ")[1].split(" %")[0])
    assert accuracy >= 99.2 - 1  # the benchmark run `digits_fecam`, minus one point
    rows = [
        line.split(",")
        for line in command("predict", "digits", "month1", "month2", "month3", "--format", "csv").splitlines()
    ]
    right = [row[1] == Path(row[0]).parent.name for row in rows[1:]]
    assert set(rows[0][2:]) == set(NAMES)
    assert sum(right) >= 0.98 * len(right)
    command("export", "digits")
    assert Path("digits/model.pt2").is_file()
    command("learn", "--into", "digits", "--to", "1")
    assert "four" not in command("predict", "digits", "month2/four", "--format", "csv").splitlines()[0]
    command("learn", "--into", "digits", "--to", "3")
