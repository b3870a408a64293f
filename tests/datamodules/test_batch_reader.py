"""Batches that a worker process reads ahead: the same bits, and where each of them was read."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

import torch

from lightning_cl.datamodules.batch_reader import BatchReader


class Items:
    """Batches of the number of the process that reads, beside what is read."""

    def __getitems__(self, keys: Sequence[Any]) -> tuple[int, Any]:
        return os.getpid(), torch.tensor(keys)


def batches(wanted: list[Any], announced: list[Any]) -> list[bool]:
    """For each batch whether this process read it; every batch is the one that was wanted."""
    reader, here = BatchReader(Items()), []  # type: ignore[arg-type]
    for keys, upcoming in zip(wanted, announced, strict=True):
        process, batch = reader.read(keys, upcoming)
        assert batch.tolist() == [list(key) for key in keys]
        here.append(process == os.getpid())
    return here


def test_a_batch_that_was_announced_is_read_elsewhere_and_any_other_here():
    def keys(n: int) -> Any:
        return [(n, 7), (n + 1, 8)]

    others = set(multiprocessing.active_children())
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = [keys(n) for n in range(5)]
    assert batches(one, [*one[1:], None]) == [True, False, False, False, False]
    assert torch.equal(torch.get_rng_state(), state)
    # 2 was announced in the place of 1, and nothing before 3.
    assert batches(one, [keys(2), keys(2), None, keys(4), None]) == [True, True, False, True, False]
    assert set(multiprocessing.active_children()) == others


def test_it_gives_up_where_what_is_announced_is_never_asked_for():
    one = [[(n, 0)] for n in range(7)]
    in_vain = [[(n + 9, 0)] for n in range(5)]
    assert batches(one, [*in_vain, one[6], None]) == [True] * 7
