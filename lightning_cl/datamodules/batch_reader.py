"""Batches by keys: one that is announced is read by a worker process, while the one before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from lightning_cl.datamodules.loader import as_it_is
from lightning_cl.datamodules.stream_dataset import Key, StreamDataset

#: So many announcements more may be in vain than were of use.
_VAIN = 3


class _Announced(Sampler[list[Key]]):
    """The keys that were announced last, once; without any the loader ends."""

    def __init__(self) -> None:
        self.keys: list[Key] | None = None

    def __iter__(self) -> Iterator[list[Key]]:
        return self

    def __next__(self) -> list[Key]:
        if self.keys is None:
            raise StopIteration
        keys, self.keys = self.keys, None
        return keys


class BatchReader:
    """Reads batches in one worker process ahead of time, where their keys are known by then.

    A batch that was announced with other keys, or not at all, is read in this process: what is announced decides on the
    time alone. The worker ends with this object, after an error of its own, and where most announcements were in vain.

    Args:
        dataset: Whole batches by their keys, the same in every process.
        vain: How many announcements more were in vain than of use, of an earlier reader.
    """

    def __init__(self, dataset: StreamDataset, vain: int = 0) -> None:
        self.dataset, self.vain = dataset, vain
        self._announced = _Announced()
        self._expected: list[Key] | None = None  # what the worker reads
        self._batches: Iterator[Any] | None = None

    @property
    def hopes(self) -> bool:
        """Whether it still reads ahead."""
        return self.vain <= _VAIN

    def read(self, keys: list[Key], upcoming: list[Key] | None = None) -> Any:
        """The batch of ``keys``; the worker begins with the batch of ``upcoming``, which will be asked for next."""
        expected, self._expected, self._announced.keys = self._expected, upcoming, upcoming
        made = None
        if self._batches is not None:
            try:
                made = next(self._batches)  # takes up what is announced
                self.vain = max(0, self.vain + (1 if expected != keys else -1))
            except Exception:  # of any kind: a broken sample, which is read again here, or a killed worker
                self.vain = _VAIN + 1
        if upcoming is None or not self.hopes:
            self._batches = self._expected = None
        elif expected is None:
            self._batches = self._worker()
        return self.dataset.__getitems__(keys) if made is None or expected != keys else made

    def _worker(self) -> Iterator[Any]:
        return iter(
            DataLoader(
                self.dataset,
                batch_sampler=self._announced,
                collate_fn=as_it_is,
                num_workers=1,
                prefetch_factor=1,
                generator=torch.Generator().manual_seed(0),  # a base seed is drawn, not from the global generator
            )
        )
