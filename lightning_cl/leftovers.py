"""Temporary files carry the mark of the process that writes them, so that what killed runs left is known."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

#: How the temporary folder begins in which the files of a report are written, beside their final place.
REPORT = ".report-"
#: The file from which the report of a run is read.
REPORT_FILE = "continual_report.json"
#: No write takes so long: what another machine wrote and is older was left by a run that is dead.
_STALE_SECONDS = 3600.0
_MARK = re.compile(r"(?P<host>.+)-(?P<pid>\d+)")


def mark() -> str:
    """``host-123``: this machine and process."""
    return f"{socket.gethostname()}-{os.getpid()}"


def is_abandoned(path: Path, owner: str) -> bool:
    """Whether nobody writes ``path`` any more; ``owner`` is the mark in its name."""
    found = _MARK.fullmatch(owner)
    if found is None or found["host"] != socket.gethostname():
        return path.exists() and time.time() - path.stat().st_mtime > _STALE_SECONDS
    return int(found["pid"]) == os.getpid() or not _is_running(int(found["pid"]))


def clear_report_leftovers(folder: Path) -> None:
    """Remove what killed writes of a report left in ``folder``; that of runs that may be alive stays."""
    with suppress(OSError):  # of a folder that is not there, or cannot be written to, which is said elsewhere
        for path in folder.glob(f"{REPORT}*"):
            if path.is_dir() and is_abandoned(path, path.name.removeprefix(REPORT).rpartition("-")[0]):
                shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
