"""Images of a Hugging Face data set, as the package ``datasets`` holds it."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.images import Augment, ImageSource
from lightning_cl.datamodules.sources.label_map import LabelMap, check_label_map, map_labels
from lightning_cl.datamodules.sources.labels import ClassNames
from lightning_cl.datamodules.sources.pictures import as_shown, reading
from lightning_cl.datamodules.sources.targets import (
    check_indexed,
    column,
    is_hugging_face,
    label_column,
)

_TEST_SPLITS = ("test", "validation", "valid", "val")
_IMAGE_KEYS = ("image", "img", "pixel_values")


def load(path: str, options: Mapping[str, Any]) -> Any:
    """The splits that ``save_to_disk`` wrote to a folder, or those of a data set on the Hub.

    Raises:
        ImportError: If the package ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{path!r} is read with the package datasets; `pip install datasets`.") from error
    if (Path(path) / "dataset_dict.json").is_file():
        return datasets.load_from_disk(path, **options)
    return datasets.load_dataset(path, **options)


def two_splits(data: Any, train: str, test: str | None) -> tuple[Any, Any]:
    """Training and test split of a ``DatasetDict`` or a pair.

    Args:
        data: The splits.
        train: Name of the training split.
        test: Name of the test split; ``None``: the first that there is of ``test``, ``validation``, ``valid``, ``val``.

    Raises:
        ValueError: If a split is missing, or is not a ``datasets.Dataset``.
    """
    if isinstance(data, Mapping):
        test = test or next((name for name in _TEST_SPLITS if name in data), "test")
        missing = [name for name in (train, test) if name not in data]
        if missing:
            raise ValueError(
                f"the data set has no split {missing[0]!r}, only {', '.join(map(repr, data))}; name the splits with "
                '`train=` and `test=`, or make one with `data["train"].train_test_split(0.2)`.'
            )
        data = data[train], data[test]
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            f"`data` is {type(data).__name__}; give a DatasetDict, a pair (train, test) of data sets as "
            "`load_dataset(...)` returns them, or a name or folder."
        )
    for name, split in zip(("train", "test"), data, strict=True):
        check_indexed(split, name)
        if not is_hugging_face(split):
            raise ValueError(
                f"`{name}` is {type(split).__name__}, which is not of the package datasets; give it to `DatasetSource`."
            )
    return data[0], data[1]


def image_column(dataset: Any, key: str | None) -> str:
    """Name of the column of a ``datasets.Dataset`` that holds the images.

    Raises:
        ValueError: If there is no such column, or several.
    """
    features = dataset.features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    found = [key] if key is not None else images or [name for name in _IMAGE_KEYS if name in features][:1]
    if len(found) != 1 or found[0] not in features:
        raise ValueError(
            f"the columns of the data set are {', '.join(map(repr, features))}, of which "
            f"{', '.join(map(repr, images)) or 'none'} hold images; say which with `image_key=`."
        )
    return found[0]


class HuggingFaceSource(ImageSource):
    """Images of a ``DatasetDict``, or of a pair of ``datasets.Dataset``, with the default transforms.

    Images and labels are found by their features ``Image`` and ``ClassLabel``, whose names become the class names. A
    transform that was set on the data set does not run here; ``DatasetSource`` leaves it in force.

    Args:
        data: A ``DatasetDict``, a pair (train, test), a folder that ``save_to_disk`` wrote, or a name on the Hub.
        train: Name of the training split.
        test: Name of the test split; ``None``: the first that there is of ``test``, ``validation``, ``valid``, ``val``.
        image_key: Column of the images; ``None``: the one with the feature ``Image``.
        label_key: Column of the labels; ``None``: the one with the feature ``ClassLabel``, else ``label`` or the like.
        class_names: One per class, ``{name: id}`` or ``{id: name}``; ``None``: those of the feature, else the numbers.
        image_size: Height and width in pixels of the transformed images; ``None``: as they are.
        normalize: Use ImageNet's mean and standard deviation; ``False`` leaves pixels in [0, 1].
        augment: See :class:`ImageFolder`.
        label_map: ``"compact"`` numbers the labels of the training split 0..C-1 in ascending order.
        options: Of ``load_dataset``, if ``data`` is a name, such as ``name`` or ``revision``.

    Raises:
        ValueError: In :meth:`setup`, if splits or columns are missing or ambiguous, or labels are not as in
            :class:`DatasetSource`.
        ImportError: If ``data`` is a name and ``datasets`` is not installed.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        data: Any,
        train: str = "train",
        test: str | None = None,
        image_key: str | None = None,
        label_key: str | None = None,
        class_names: ClassNames | None = None,
        image_size: int | None = 224,
        normalize: bool = True,
        augment: Augment | None = None,
        label_map: LabelMap | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(image_size, normalize, augment)
        check_label_map(label_map)
        self._given, self._splits, self._options = data, (train, test), options or {}
        self.image_key, self.label_key, self.label_map, self._names = image_key, label_key, label_map, class_names

    def prepare(self) -> None:
        """Download what a name on the Hub stands for."""
        if isinstance(self._given, (str, os.PathLike)):
            load(os.fspath(self._given), self._options)

    def _open(self) -> None:
        is_name = isinstance(self._given, (str, os.PathLike))
        data = load(os.fspath(self._given), self._options) if is_name else self._given
        train, test = two_splits(data, *self._splits)
        key = label_column(train, self.label_key, "label_key")
        names = self._names if self._names is not None else getattr(train.features[key], "names", None)
        labels = map_labels(column(train, key), column(test, key), names, self.label_map)
        self._image_key = image_column(train, self.image_key)
        # Only this column is decoded, and no format or transform that was set on the data set is in the way.
        self._data = {
            split: part.with_format(None).select_columns([self._image_key])
            for split, part in (("train", train), ("test", test))
        }
        self._describe(labels.train, labels.test, labels.names)

    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: an RGB PIL image (of arrays a uint8 tensor ``(C, H, W)``), and an int."""
        name, data = f"{split}[{int(index)}]", self._data[split]
        image = reading(name, lambda: _decoded(data[int(index)][self._image_key]))
        labels = self.train_labels if split == "train" else self.test_labels
        return image, int(labels[index])


def _decoded(value: Any) -> Any:
    """An image of whatever a column holds: a PIL image, the bytes or path of a file, or nested lists."""
    if hasattr(value, "convert"):
        return as_shown(value)
    if isinstance(value, dict):  # as the feature Image(decode=False) has it
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, (bytes, str)):
        from PIL import Image

        with Image.open(io.BytesIO(value) if isinstance(value, bytes) else value) as image:
            return as_shown(image)
    pixels = torch.as_tensor(value, dtype=torch.uint8)  # (H, W) or (H, W, C)
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)
