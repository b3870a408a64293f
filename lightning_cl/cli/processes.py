"""Run work in a process of its own: one that dies takes nothing along, and none outlives the command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from lightning_cl.cli.configs import UsageError

_GRACE = 60.0  # seconds for a run to save its checkpoint after Ctrl-C


def in_process(work: Callable[..., Any], *arguments: Any, output: Path | None = None) -> tuple[Any, str | None]:
    """Do some work in a process of its own: whatever becomes of it, this one goes on.

    On Linux the process is a copy of this one, so nothing is imported again, unless CUDA is already in use here.
    Gives what the work returned, which must be picklable, and ``None``; or ``None`` and what went wrong. All that it
    prints goes to the file, or else to the terminal.
    """
    forked = sys.platform == "linux" and not torch.cuda.is_initialized()
    context: Any = multiprocessing.get_context("fork" if forked else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, output, work, arguments))
    sys.stdout.flush()
    process.start()
    sender.close()
    try:
        with interruptible():
            try:
                answer: tuple[Any, str | None] = receiver.recv()
            except EOFError:
                process.join()
                answer = None, _died(process.exitcode)
            process.join()
    except KeyboardInterrupt:
        process.join(1.0)  # a terminal sends Ctrl-C to both; it may save its checkpoint
        if process.is_alive():
            process.terminate()
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
        raise
    return answer


def _died(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with code {code} and said nothing"


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, which schedulers send, raises what Ctrl-C raises, so that processes started here end, too."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None):
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
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
    result, problem = None, None
    try:
        result = work(*arguments)
    except UsageError as error:
        print(f"lightning-cl: {error}", file=sys.stderr)
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    except BaseException as error:
        traceback.print_exc()
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send((result, problem))
    sender.close()


class Runner(Protocol):
    """Carries out the runs of a sweep."""

    def __call__(self, config: Path, log: Path) -> int:
        """Run ``lightning-cl fit``; gives the exit code."""

    def stop(self) -> None:
        """Interrupt what is running."""


class Processes:
    """Every run in a process of its own: one that dies takes nothing along."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped = threading.Lock(), False

    def __call__(self, config: Path, log: Path) -> int:
        """Run ``lightning-cl fit``."""
        command = [sys.executable, "-m", "lightning_cl.cli", "fit", "--config", str(config)]
        with log.open("wb") as file:
            with self._lock:
                if self._stopped:
                    return 130
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)

    def stop(self) -> None:
        """Interrupt the runs, and kill those that do not end."""
        with self._lock:
            self._stopped, running = True, list(self._running)
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
