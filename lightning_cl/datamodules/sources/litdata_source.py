"""Images of an optimised LitData set: local folders, or object storage that is too large to copy."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.images import Augment, ImageSource
from lightning_cl.datamodules.sources.label_map import map_labels
from lightning_cl.datamodules.sources.labels import ClassNames
from lightning_cl.datamodules.sources.pictures import as_shown

#: Formats of LitData that decode an image (or a film) when an item is read.
_DECODING = ("image", "pil", "jpeg", "jpeg_array", "tifffile", "video")
_CACHE = Path("~/.cache/lightning_cl/litdata")


def open_set(path: str, skip_images: bool = False, **options: Any) -> Any:
    """A ``litdata.StreamingDataset``, read by index and never iterated.

    Args:
        path: Folder or URL of one split.
        skip_images: Leave images out of the items, instead of decoding them.
        options: Of ``StreamingDataset``.

    Raises:
        ImportError: If LitData is not installed.
        FileNotFoundError: If there is no optimised set.
    """
    try:
        from litdata import StreamingDataset
        from litdata.streaming.serializers import Serializer
    except ImportError as error:
        raise ImportError(
            f"LitDataSource reads {path!r} with LitData, which is not installed; `pip install 'lightning-cl[cloud]'`."
        ) from error

    class Skip(Serializer):  # type: ignore[misc, unused-ignore]
        def serialize(self, data: Any) -> Any:
            raise NotImplementedError

        def deserialize(self, data: bytes) -> None:
            return None

        def can_serialize(self, data: Any) -> bool:
            return False

    skipped = {"serializers": {name: Skip() for name in _DECODING}} if skip_images else {}
    try:
        dataset = StreamingDataset(path, **skipped, **options)
        len(dataset)
    except Exception as error:  # of the file system, or of any storage client
        raise FileNotFoundError(
            f"no optimised LitData set can be read at {path!r} ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "give the folder or URL whose `train` and `test` hold an index.json each, as `litdata.optimize` writes it, "
            "or name the splits with `train=` and `test=`."
        ) from error
    return dataset


def fingerprint(dataset: Any) -> str:
    """Hexadecimal SHA-256 of the index (all chunks, when they were written) of a set with an item."""
    dataset[0]  # opens the set, so that the index is there
    index = Path(dataset.cache.cache_dir, "index.json")
    digest = hashlib.sha256(index.read_bytes())
    digest.update(str(dataset.input_dir.url or index.stat().st_mtime_ns).encode())  # a copy of a remote one is anew
    return digest.hexdigest()


def field(item: Any, key: str | int, path: str) -> Any:
    """The part of an item that a key names.

    Raises:
        ValueError: If items have no such part.
    """
    try:
        return item[key]
    except (KeyError, IndexError, TypeError) as error:
        if isinstance(item, dict):
            has = f"dictionaries with {', '.join(map(repr, item))}"
        else:
            has = f"{type(item).__name__} of {len(item)}" if isinstance(item, (tuple, list)) else type(item).__name__
        raise ValueError(
            f"the items at {path!r} have no {key!r}: they are {has}; name the parts with `image_key=` and `label_key=`."
        ) from error


def read_labels(path: str, key: str | int, cache: Path, **options: Any) -> np.ndarray:
    """Labels of one split, ``(N,)`` int64 or class names, from ``labels.npy`` beside the chunks or by one light pass.

    The pass decodes no image; what it finds is kept in ``cache`` under the fingerprint of the index.

    Raises:
        ValueError: If items have no label, or labels are neither integers nor names.
    """
    dataset = open_set(path, skip_images=True, **options)
    beside = Path(path) / "labels.npy"
    if "://" not in path and beside.is_file():
        labels: np.ndarray = np.load(beside)
        if len(labels) != len(dataset):
            raise ValueError(
                f"{str(beside)!r} has {len(labels)} labels, but the set has {len(dataset)} items; remove it."
            )
        return labels
    if len(dataset) == 0:
        return np.zeros(0, dtype=np.int64)
    kept = cache / f"{hashlib.sha256(f'{fingerprint(dataset)} {key!r}'.encode()).hexdigest()}.npy"
    if kept.is_file():
        known: np.ndarray = np.load(kept)
        return known
    values = [field(dataset[i], key, path) for i in range(len(dataset))]
    labels = np.asarray([value.item() if hasattr(value, "item") else value for value in values])
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"the labels at {path!r} must be integers 0..C-1 or class names, but {key!r} is {values[0]!r}; give the "
            "part that holds them as `label_key=`."
        )
    cache.mkdir(parents=True, exist_ok=True)
    own = kept.with_name(f"{kept.stem}.{os.getpid()}.npy")
    np.save(own, labels)
    own.replace(kept)  # other processes see all of it, or nothing
    return labels


class LitDataSource(ImageSource):
    """Images of an optimised LitData set, one folder (or URL prefix) per split, each image fetched by its index.

    Items are dictionaries or tuples with an image (PIL, or a uint8 tensor ``(C, H, W)``) and a label: an integer, or
    the name of a class. Labels are read once, without decoding images, and kept; or they lie beside the chunks as
    ``labels.npy``. Storage (``s3://``, ``gs://``, ...) and the cache of chunks on disk are LitData's.

    Args:
        path: Folder or URL that holds the splits.
        train: Name of the training split below ``path``.
        test: Name of the test split.
        image_key: Of the image in an item.
        label_key: Of the label.
        class_names: One per class, ``{name: id}`` or ``{id: name}``; ``None``: the labels' own names, else the numbers.
        image_size: Height and width in pixels of the transformed images; ``None``: as they are.
        normalize: Use ImageNet's mean and standard deviation; ``False`` leaves pixels in [0, 1].
        augment: See :class:`ImageFolder`.
        label_cache: Folder for the labels that were read; ``None``: ``~/.cache/lightning_cl/litdata``.
        options: Of ``litdata.StreamingDataset``, such as ``storage_options`` or ``max_cache_size``.

    Raises:
        ImportError: In :meth:`setup`, if LitData is not installed (the extra ``cloud``).
        FileNotFoundError: In :meth:`setup`, if a split cannot be read.
        ValueError: In :meth:`setup`, if items have no label, or labels are neither integers from 0 nor names.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        path: str | os.PathLike[str],
        train: str = "train",
        test: str = "test",
        image_key: str | int = "image",
        label_key: str | int = "label",
        class_names: ClassNames | None = None,
        image_size: int | None = 224,
        normalize: bool = True,
        augment: Augment | None = None,
        label_cache: str | os.PathLike[str] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(image_size, normalize, augment)
        root = os.fspath(path).rstrip("/")
        self._paths = {"train": f"{root}/{train}", "test": f"{root}/{test}"}
        self.image_key, self.label_key, self._names = image_key, label_key, class_names
        self._cache = Path(label_cache) if label_cache is not None else _CACHE.expanduser()
        self._options = options or {}
        self._opened: dict[tuple[int, str], Any] = {}

    def prepare(self) -> None:
        """Read the labels on one process, so that the others find them."""
        for path in self._paths.values():
            read_labels(path, self.label_key, self._cache, **self._options)

    def _open(self) -> None:
        found = [read_labels(self._paths[s], self.label_key, self._cache, **self._options) for s in ("train", "test")]
        labels = map_labels(found[0], found[1], self._names)
        self._describe(labels.train, labels.test, labels.names)

    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: an RGB PIL image or a uint8 tensor, and an int."""
        where = os.getpid(), split  # a data worker reads for itself: threads and mappings do not survive a fork
        if where not in self._opened:
            self._opened[where] = open_set(self._paths[split], **self._options)
        image = field(self._opened[where][int(index)], self.image_key, self._paths[split])
        labels = self.train_labels if split == "train" else self.test_labels
        return as_shown(image) if hasattr(image, "convert") else image, int(labels[index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}
