"""Data sets with open files: a worker opens its own where a function makes the data set, else it warns."""

from __future__ import annotations

import functools
import os
import pickle

import pytest
from torch.utils.data import ConcatDataset, Subset

from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource


class Environment:
    """Like an LMDB environment: of use only in the process that opened it, and never pickled."""

    __module__ = "lmdb.cffi"

    def __init__(self):
        self.opened_by = os.getpid()

    def get(self, index):
        assert self.opened_by == os.getpid(), "read in another process"
        return float(index)

    def __reduce__(self):
        raise TypeError("cannot pickle 'Environment' object")


class Records:
    def __init__(self, labels):
        self.targets, self.file = labels, Environment()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.file.get(index), self.targets[index]


LABELS = [0, 1, 0, 1]
make = functools.partial(Records, LABELS)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_process_opens_its_own(workers):
    stream = ContinualDataModule(DatasetSource(make, make), ClassIncremental(1), batch_size=4, num_workers=workers)
    stream.setup("fit")
    for _ in range(2):
        rows, labels = next(iter(stream.train_dataloader()))
        assert sorted(rows.tolist()) == [0, 1, 2, 3]
        assert [LABELS[int(row)] for row in rows] == labels.tolist()


def test_what_a_function_makes_is_not_pickled():
    source = DatasetSource(make, make)
    source.setup()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.item("test", 3) == (3.0, 1)
    assert copy.digest() == source.digest()


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, [0, 1]), lambda d: ConcatDataset([d, d])])
def test_an_open_file_in_a_worker_is_named(monkeypatch, wrap):
    source = DatasetSource(wrap(make()), make)
    source.setup()
    source.item("train", 0)  # here it may be read
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a forked worker
    with (
        pytest.warns(UserWarning, match=r"train data set came into a data worker with an open lmdb\.Environment"),
        pytest.raises(AssertionError, match="read in another process"),
    ):
        source.item("train", 0)
