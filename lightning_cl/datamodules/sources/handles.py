"""Open files that do not survive a data worker: LMDB environments and HDF5 files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import ConcatDataset, Subset

_LIBRARIES = ("lmdb", "h5py")


def is_factory(data: Any) -> bool:
    """Whether this is a function that makes a data set, not a data set."""
    return callable(data) and not hasattr(data, "__getitem__")


def open_handles(dataset: Any) -> Iterator[str]:
    """Types of the files that a data set, or one inside it, holds open."""
    inner = [dataset.dataset] if isinstance(dataset, Subset) else []
    inner += list(dataset.datasets) if isinstance(dataset, ConcatDataset) else []
    for part in inner:
        yield from open_handles(part)
    for value in getattr(dataset, "__dict__", {}).values():
        library = type(value).__module__.partition(".")[0]
        if library in _LIBRARIES:
            yield f"{library}.{type(value).__name__}"


def warn_of_handles(dataset: Any, split: str) -> None:
    """Warn, in a data worker, of files that another process has opened."""
    found = next(open_handles(dataset), None)
    if found is not None:
        warnings.warn(
            f"the {split} data set came into a data worker with an open {found}, which only the process that opened it "
            f"may read; give a function that makes the data set, `DatasetSource(lambda: MyData(path), ...)`, so that "
            "every worker opens its own.",
            UserWarning,
            stacklevel=2,
        )
