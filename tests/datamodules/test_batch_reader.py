"""Batches that a worker process reads ahead: the same bits, and where each of them was read."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

import torch

from lightning_cl.datamodules.batch_reader import BatchReader


class Items:
    """Batches of the number of the process that reads, beside what is read; some numbers cannot be read."""

    def __getitems__(self, keys: Sequence[Any]) -> tuple[int, Any]:
        if any(key[0] < 0 for key in keys):
            raise OSError("broken")
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


def test_an_error_in_what_nobody_asks_for_is_none():
    one = [[(n, 0)] for n in range(4)]
    assert batches(one, [[(-1, 0)], one[2], one[3], None]) == [True] * 4


def test_a_new_reader_knows_what_was_in_vain():
    reader = BatchReader(Items(), vain=3)  # type: ignore[arg-type]
    assert reader.hopes
    reader.read([(0, 0)], [(9, 0)])
    reader.read([(1, 0)], [(2, 0)])
    assert not reader.hopes
