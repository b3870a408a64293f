"""What a killed write of a report left is cleared away at the next start; that of runs that may be alive stays."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from datamodules.tiny_stream import TinyModule, make_stream, make_trainer

from lightning_cl.callbacks import ContinualCheckpoint
from lightning_cl.leftovers import clear_report_leftovers
from lightning_cl.reports.files import write_files

pytestmark = pytest.mark.filterwarnings("ignore")
KILLED = """
import os, signal, sys
from pathlib import Path
from lightning_cl.reports.files import write_files
write_files(Path(sys.argv[1]), {"a.txt": lambda path: os.kill(os.getpid(), signal.SIGKILL)}, ["a.txt"], False)
"""


FOLDER = TemporaryDirectory()


def leftover(folder: Path) -> Path:
    """What a process leaves that is killed while it writes a report."""
    shutil.copytree(killed(), folder, dirs_exist_ok=True)
    (left,) = folder.glob(".report-*")
    return left


@cache
def killed() -> Path:
    """The folder of such a process, once for all tests."""
    folder = Path(FOLDER.name)
    assert subprocess.run([sys.executable, "-c", KILLED, folder], check=False).returncode < 0
    return folder


def test_the_next_start_clears_it_away(tmp_path):
    left = leftover(tmp_path)
    seen: list[bool] = []

    class Looking(TinyModule):
        def on_train_start(self) -> None:
            seen.append(left.exists())

    trainer = make_trainer(tmp_path, [ContinualCheckpoint(tmp_path / "checkpoints")])
    trainer.fit(Looking(), datamodule=make_stream())
    assert seen == [False]


def test_the_next_report_clears_it_away(tmp_path):
    leftover(tmp_path)
    write_files(tmp_path, {"a.txt": lambda path: path.write_text("whole")}, ["a.txt"], False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("owner", "age", "stays"),
    [
        (f"{socket.gethostname()}-{os.getppid()}", 1e6, True),
        ("another-1", 0, True),
        ("another-1", 1e4, False),
        ("", 1e4, False),  # of an earlier version
        ("", 0, True),
    ],
)
def test_what_may_be_of_a_run_that_is_alive_stays(tmp_path, owner, age, stays):
    path = tmp_path / f".report-{owner}-abc"
    path.mkdir()
    os.utime(path, (time.time() - age,) * 2)
    clear_report_leftovers(tmp_path)
    assert path.exists() is stays
    clear_report_leftovers(tmp_path / "none")
