"""A test of processes that hang fails, and says where; it never blocks the others."""

from __future__ import annotations

import os
import time

import pytest
import torch

from . import runs
from .runs import in_forked_processes


def wait_for_what_never_comes() -> None:
    while True:
        time.sleep(60)


def hang_on(rank: str) -> None:
    if os.environ["RANK"] == rank:
        wait_for_what_never_comes()


def test_a_hang_is_a_failure_that_names_the_place():
    with pytest.raises(AssertionError, match=r"(?s)rank 1 of 3 hangs:.*in wait_for_what_never_comes") as caught:
        in_forked_processes(lambda: hang_on("1"), count=3, patience=0.5)
    assert "rank 0" not in str(caught.value)


@pytest.mark.slow
def test_a_collective_that_not_all_ranks_join_is_a_hang():
    def function() -> None:
        torch.distributed.init_process_group("gloo")
        if os.environ["RANK"] == "0":
            torch.distributed.barrier()
        else:
            wait_for_what_never_comes()

    with pytest.raises(AssertionError, match=r"(?s)rank 0 of 2 hangs:.*in barrier.*rank 1 of 2 hangs:.*wait_for_what"):
        in_forked_processes(function, count=2, patience=8)


def test_ranks_that_a_failed_one_left_behind_are_ended(monkeypatch):
    monkeypatch.setattr(runs, "GRACE", 0.5)

    def function() -> None:
        if os.environ["RANK"] == "0":
            os._exit(3)
        wait_for_what_never_comes()

    assert in_forked_processes(function, count=2) == [3, -9]
