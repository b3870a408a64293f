"""Runs in processes of their own: one that dies takes nothing along, and none outlives the command that started it."""

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

from lightning_cl.cli_support.configs import UsageError

_GRACE = 60.0  # seconds for a run to save its checkpoint after Ctrl-C


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


@contextmanager
def _stopping(process: Any) -> Iterator[None]:
    """Ctrl-C and SIGTERM reach the process, too, and it may save its checkpoint."""
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        process.join(1.0)  # a terminal sends Ctrl-C to both
        if process.is_alive():
            process.terminate()
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
        raise


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


# ---------------------------------------------------------------------- fresh processes, several at a time


class Runner(Protocol):
    """Runs ``fit`` with a config file and gives the exit code."""

    def __call__(self, config: Path, log: Path) -> int:
        """Run it, with all output in ``log``."""

    def stop(self) -> None:
        """End what is running."""


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
