"""Ports at which processes of one test meet."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import cycle

#: Below the ports that systems give away by themselves (from 32768 on), so that no connection of another test takes one
#: between the choice and the use of it; a thousand for each process of `pytest -n`.
FIRST, EACH = 20_000, 1_000


def _own() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    start = os.getpid() % EACH  # another run of the tests on this machine starts at another one
    return cycle(FIRST + worker * EACH + (start + i) % EACH for i in range(EACH))


_PORTS = _own()


def free_port() -> int:
    """A port of this process' own thousand at which nothing listens, another one at each call."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable: the ports come round again")
