"""Data that is only read from its start to its end, for online streams."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from lightning_cl.datamodules.argument_kinds import as_count
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.label_map import label_values, map_labels
from lightning_cl.datamodules.sources.labels import ClassNames
from lightning_cl.datamodules.sources.targets import check_indexed


class IterableSource(Source):
    """An iterable training set (``IterableDataset``, a streaming Hugging Face data set) in the order in which it comes.

    For scenarios of one ordered pass, such as ``SampleIncremental(num_tasks, order="stream")``. The position is the
    number of the sample, so a resumed run goes on with exactly the next one: what lies before it is skipped by the data
    set's own ``skip(n)``, or read and thrown away. Every iteration must give the same samples in the same order, in
    every process; each data worker reads for itself.

    Args:
        train: The training set, or a function that opens it.
        num_samples: How many of its samples are trained on; they must be there.
        test: A map-style data set, or a list of items.
        train_targets: ``(num_samples,)`` integers from 0 or class names; ``None``: samples have no class.
        test_targets: ``(N_test,)``, as ``train_targets``.
        class_names: As in :class:`DatasetSource`.
        collate_fn: Makes a batch of a list of items; ``None``: PyTorch's ``default_collate``.
        window: So many samples are kept after they were read, at least a batch over all processes, for batches that
            come again (``updates_per_batch``).

    Raises:
        ValueError: If a number is below 1 or one kind of targets is missing; in :meth:`setup`, if ``test`` has no
            positions or targets are not one for each sample; while training, if there are fewer samples.
    """

    sequential = True

    def __init__(
        self,
        train: Any,
        num_samples: int,
        test: Any,
        train_targets: Any = None,
        test_targets: Any = None,
        class_names: ClassNames | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        window: int = 1024,
    ) -> None:
        for name, value in (("num_samples", num_samples), ("window", window)):
            if as_count(name, value) < 1:
                raise ValueError(f"`{name}` is {value}; give a number of samples of at least 1.")
        if (train_targets is None) != (test_targets is None):
            raise ValueError("targets are given for one split only; give `train_targets` and `test_targets`, or none.")
        self._train, self._test, self.num_samples, self.window = train, test, num_samples, window
        self._targets, self._names, self.collate_fn = (train_targets, test_targets), class_names, collate_fn
        self._process: int | None = None
        self._items: Iterator[Any] = iter(())
        self._next = 0  # number of the sample that is read next
        self._recent: deque[Any] = deque(maxlen=window)  # those before it

    def _open(self) -> None:
        check_indexed(self._test, "test")
        if self._targets[0] is None:
            return self._describe_without_classes(self.num_samples, len(self._test))
        for split, values, count in zip(
            ("train", "test"), self._targets, (self.num_samples, len(self._test)), strict=True
        ):
            if len(label_values(values, f"{split}_targets")) != count:
                raise ValueError(f"there are {count} {split} samples but {len(values)} targets; give one for each.")
        labels = map_labels(*self._targets, self._names)
        return self._describe(labels.train, labels.test, labels.names)

    def item(self, split: Split, index: int) -> Any:
        """Sample ``index`` as it comes; reading on is cheap, going back beyond the window begins anew.

        Raises:
            ValueError: If the training set ends before it.
        """
        if split == "test":
            return self._test[index]
        behind = self._next - int(index)
        if self._process == os.getpid() and 0 < behind <= len(self._recent):
            return self._recent[-behind]
        if self._process != os.getpid() or behind > 0:
            self._begin(int(index))
        return self._read(int(index))

    def _begin(self, index: int) -> None:
        """Open the training set anew, at a sample if it can skip those before."""
        data = self._train() if callable(self._train) and not hasattr(self._train, "__iter__") else self._train
        skips = hasattr(data, "skip")
        self._items, self._next = iter(data.skip(index) if skips else data), index if skips else 0
        self._process = os.getpid()
        self._recent.clear()

    def _read(self, index: int) -> Any:
        for item in islice(self._items, index + 1 - self._next):
            self._recent.append(item)
            self._next += 1
        if self._next != index + 1:
            raise ValueError(
                f"the training data ended after {self._next} samples, but `num_samples` is {self.num_samples}; give "
                "the number that there are."
            )
        return self._recent[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": iter(()), "_process": None, "_recent": deque(maxlen=self.window)}
