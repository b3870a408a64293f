"""SIGTERM and Ctrl-C as a wish that the fit looks at, instead of an end in the middle of a step."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from lightning_cl.namespace import SIGTERMException, Trainer

_NOTICE = "\nStopping after this batch, with a checkpoint; press Ctrl-C again to stop at once.\n"
#: Launchers pass on what the terminal has sent already; this soon after the first it is the same press.
_ONE_PRESS = 0.5


class StopSignals:
    """Takes the place of Python's and Lightning's handlers from the start of a fit until its end.

    Lightning's own handler of SIGTERM starts a broadcast wherever the signal finds it, which the other processes do not
    expect. Here a signal only leaves a mark, and the processes agree on the batch after which all of them stop. A
    handler that the user had for SIGTERM is called too; one for SIGINT keeps Ctrl-C to itself. Lightning restores
    all handlers when the fit ends, however it ends.
    """

    def __init__(self) -> None:
        self.asked = 0  # the signal's number
        self._since = 0.0
        self._pid = self._rank = -1
        self._before: Any = None

    def install(self, trainer: Trainer) -> None:
        """Take the signals over; does nothing in a thread, where Python has no signals."""
        if self._pid == os.getpid() or threading.current_thread() is not threading.main_thread():
            return
        self._pid, self._rank = os.getpid(), trainer.global_rank
        connector = trainer._signal_connector
        self._before = connector._original_handlers.get(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self._on_signal)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._in_child(number)
        elif not self.asked:
            self.asked, self._since = number, time.monotonic()
            if self._rank == 0:
                os.write(2, _NOTICE.encode())  # `print` may be what was interrupted
            if number == signal.SIGTERM and callable(self._before):
                self._before(number, frame)
        elif number == signal.SIGINT and time.monotonic() - self._since > _ONE_PRESS:
            raise KeyboardInterrupt

    @staticmethod
    def _in_child(number: int) -> None:
        """A process that was forked with these handlers, as a loader's worker: its parent decides about Ctrl-C."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def stop_exception(number: int) -> BaseException:
    """What Lightning raises for the signal; after SIGTERM the exit code is 143, as a shell would have it."""
    return KeyboardInterrupt() if number == signal.SIGINT else SIGTERMException(128 + number)
