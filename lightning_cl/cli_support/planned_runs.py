"""One run of a comparison: its configuration, its folder, whether it is finished, and the process it runs in."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl import __version__
from lightning_cl.callbacks.atomic_checkpoint_io import is_complete
from lightning_cl.cli_support.checking import newest_version
from lightning_cl.cli_support.command import run
from lightning_cl.cli_support.configs import UsageError
from lightning_cl.cli_support.continuing import newest_first
from lightning_cl.metrics._files import to_json
from lightning_cl.metrics.report import FILE_NAME

CONFIG, RESULT, OUTPUT = "run.yaml", "result.json", "output.txt"
#: Callbacks that every run of a comparison has: results, checkpoints to continue from, costs.
NEEDED = ("ContinualEvaluation", "ContinualCheckpoint", "RunCost")
#: Settings that change nothing but what is seen on the screen.
_SHOWN = ("enable_progress_bar", "enable_model_summary")
_GRACE = 60.0  # seconds for a run to save its checkpoint after Ctrl-C

Config = dict[str, Any]


def short_name(entry: Any) -> str:
    """Class name of an entry of a configuration."""
    path = entry if isinstance(entry, str) else entry.get("class_path", "")
    return str(path).rsplit(".", 1)[-1]


@dataclass(frozen=True)
class PlannedRun:
    """A method with a seed.

    Attributes:
        method: Its name in tables.
        seed: Of ``seed_everything`` and the stream.
        folder: Holds everything of the run.
        config: What is run.
    """

    method: str
    seed: int
    folder: Path
    config: Config

    @classmethod
    def of(cls, method: str, seed: int, folder: Path, config: Config) -> PlannedRun:
        """With the seed, the needed callbacks, and a logger that keeps the run in ``folder/method/seed<k>``."""
        config = copy.deepcopy(config)
        config["seed_everything"] = seed
        config["data"]["seed"] = seed
        trainer = config["trainer"]
        settings = {"save_dir": str(folder / method), "name": f"seed{seed}"}
        trainer["logger"] = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": settings}
        given = trainer.get("callbacks") or []
        callbacks = [*given] if isinstance(given, list) else [given]
        missing = [name for name in NEEDED if name not in map(short_name, callbacks)]
        trainer["callbacks"] = callbacks + [{"class_path": f"lightning_cl.callbacks.{name}"} for name in missing]
        return cls(method, seed, folder / method / f"seed{seed}", config)

    def describes(self, folder: Path) -> bool:
        """What lies in ``folder`` is this run: same configuration, same version of the package."""
        path = folder / CONFIG
        if not path.is_file():
            return False
        try:
            known = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            return False
        same_version = f"lightning_cl {__version__}\n" in path.read_text(encoding="utf-8")
        return same_version and isinstance(known, dict) and _essence(known) == _essence(self.config)

    def finished(self) -> Path | None:
        """Folder with the report, if this run has come to its end before."""
        mark = self.folder / RESULT
        if not self.describes(self.folder) or not mark.is_file():
            return None
        found = self.folder / str(json.loads(mark.read_text(encoding="utf-8"))["folder"])
        return found if (found / FILE_NAME).is_file() else None

    def begun(self) -> bool:
        """There is a checkpoint of this run to go on from."""
        saved = newest_first(list(self.folder.glob("*/checkpoints")))
        return self.describes(self.folder) and any(is_complete(path) for path in saved)

    def prepare(self) -> list[str]:
        """Make the folder, keep aside what another configuration left in it, and give the words that run this."""
        go_on = self.begun()
        if self.folder.exists() and not self.describes(self.folder):
            _keep(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CONFIG
        head = f"# {self.method}, seed {self.seed}, lightning_cl {__version__}\n# lightning-cl fit --config {path}\n"
        path.write_text(head + yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        return ["fit", "--config", str(path), *(["--ckpt_path", "last"] if go_on else [])]

    def finish(self) -> Path:
        """Mark the newest report as the result.

        Raises:
            UsageError: If there is none.
        """
        found = newest_version(self.folder)
        if not (found / FILE_NAME).is_file():
            raise UsageError(f"the run left no report in {found}.")
        (self.folder / RESULT).write_text(to_json({"folder": found.name}), encoding="utf-8")
        return found


def _essence(config: Config) -> Config:
    trainer = {name: value for name, value in config["trainer"].items() if name not in _SHOWN}
    return {**config, "trainer": trainer}


def _keep(folder: Path) -> None:
    number = 1
    while (kept := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    os.replace(folder, kept)


# ---------------------------------------------------------------------- a process of its own


def in_process(work: Callable[..., Any], *arguments: Any, output: Path | None = None) -> tuple[Any, str | None]:
    """Do some work in a process of its own: whatever becomes of it, this one goes on.

    On Linux the process is a copy of this one, so nothing is imported again, unless CUDA is already in use here.

    Args:
        work: A function of a module; what it returns must be picklable.
        *arguments: Of the work.
        output: File for everything that it prints; the terminal when ``None``.

    Returns:
        What it returned, and ``None``; or ``None`` and what went wrong, in one sentence.

    Raises:
        KeyboardInterrupt: After the work was interrupted and has ended.
    """
    forked = sys.platform == "linux" and not torch.cuda.is_initialized()
    context: Any = multiprocessing.get_context("fork" if forked else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, output, work, arguments))
    sys.stdout.flush()
    process.start()
    sender.close()
    with _stopping(process):
        try:
            answer: tuple[Any, str | None] = receiver.recv()
        except EOFError:
            process.join()
            answer = None, _died(process.exitcode)
        process.join()
    return answer


def _died(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with code {code} and said nothing"


@contextmanager
def _stopping(process: Any) -> Any:
    """Ctrl-C and SIGTERM reach the process, too, and it may save its checkpoint."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    main_thread = signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None)
    before = signal.signal(signal.SIGTERM, stop) if main_thread else None
    try:
        yield
    except KeyboardInterrupt:
        process.join(1.0)  # a terminal sends Ctrl-C to both
        if process.is_alive():
            process.terminate()
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
        raise
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)


def _work(sender: Any, output: Path | None, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    answer: tuple[Any, str | None]
    try:
        answer = work(*arguments), None
    except UsageError as error:
        print(f"lightning-cl: {error}", file=sys.stderr)
        answer = None, str(error)
    except KeyboardInterrupt:
        answer = None, "interrupted"
    except BaseException as error:
        traceback.print_exc()
        answer = None, f"{type(error).__name__}: {error}".splitlines()[0]
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send(answer)
    sender.close()


def fit(words: list[str], debug: bool) -> int:
    """A run, in a process of its own; further processes of a distributed run read the same words."""
    sys.argv[1:] = words
    return run(words, [words[2]], debug)
