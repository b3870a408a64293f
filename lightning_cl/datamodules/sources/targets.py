"""Labels and class names of a map-style data set, read without fetching an item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from lightning_cl.datamodules.batch_form import TARGET_KEYS
from lightning_cl.datamodules.sources.label_map import label_values
from lightning_cl.datamodules.sources.labels import ClassNames, names_by_id


def check_indexed(dataset: Any, argument: str) -> None:
    """Check that items of a data set are found by their position.

    Raises:
        ValueError: If the data set can only be read from its start, or is a dictionary of several.
    """
    kind = type(dataset).__name__
    if isinstance(dataset, Mapping):
        raise ValueError(
            f"`{argument}` is a {kind} with the splits {', '.join(map(repr, dataset))}; give one of them each as "
            "`train` and `test`, or the whole of it to `HuggingFaceSource`."
        )
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise ValueError(
            f"`{argument}` is a {kind}, which is read from its start to its end, but a stream fetches every item by "
            "its position (`__len__` and `__getitem__`) and needs all labels beforehand; save the items once, as files "
            "for `ImageFolder`, with `datasets.Dataset.from_generator` for `HuggingFaceSource`, or with "
            "`litdata.optimize` for `LitDataSource`, or give it to `IterableSource` for an online stream."
        )


def is_hugging_face(dataset: Any) -> bool:
    """Whether this is a ``datasets.Dataset``, which has named columns with features."""
    return all(hasattr(dataset, name) for name in ("features", "column_names", "with_format", "select_columns"))


def label_column(dataset: Any, key: str | None, argument: str) -> str:
    """Name of the column of a ``datasets.Dataset`` that holds the labels.

    Args:
        dataset: The data set.
        key: The name, if it is known; ``None``: the one ``ClassLabel``, else ``label``, ``labels``, ``target``, ...
        argument: Of the caller, which takes the labels or their name; for the message.

    Raises:
        ValueError: If there is no such column, or several.
    """
    features = dataset.features
    classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    found = classes or [name for name in TARGET_KEYS if name in features][:1] if key is None else [key]
    if len(found) != 1 or found[0] not in features:
        raise ValueError(
            f"the columns of the data set are {', '.join(map(repr, features))}, of which "
            f"{', '.join(map(repr, classes)) or 'none'} hold class labels; say which to learn with `{argument}=`."
        )
    return found[0]


def read_targets(dataset: Any, argument: str) -> np.ndarray:
    """Labels of a data set, ``(N,)`` int64 or names, without fetching an item.

    They come from ``.targets``, ``.labels``, the label column of a ``datasets.Dataset`` or the second tensor of a
    ``TensorDataset``; subsets and concatenations of such data sets are followed.

    Args:
        dataset: A map-style data set.
        argument: Name of the argument that takes the labels, for the message.

    Raises:
        ValueError: If the labels cannot be read this way, or are neither integers nor names.
    """
    if isinstance(dataset, Subset):
        return read_targets(dataset.dataset, argument)[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        return _joined([read_targets(part, argument) for part in dataset.datasets], argument)
    if is_hugging_face(dataset):
        return column(dataset, label_column(dataset, None, argument))
    for name in ("targets", "labels"):
        if getattr(dataset, name, None) is not None:
            return label_values(getattr(dataset, name), f"{type(dataset).__name__}.{name}")
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return label_values(dataset.tensors[1], "TensorDataset.tensors[1]")
    raise ValueError(
        f"the labels of {type(dataset).__name__} cannot be read without decoding its items, because it has neither "
        f"`.targets` nor `.labels`; pass `{argument}=` with one integer per item."
    )


def _joined(parts: list[np.ndarray], argument: str) -> np.ndarray:
    if len({part.dtype.kind for part in parts}) > 1:
        raise ValueError(f"some of the joined data sets name their classes, others number them; pass `{argument}=`.")
    return np.concatenate(parts)


def column(dataset: Any, name: str) -> np.ndarray:
    """Labels in a column of a ``datasets.Dataset``; its other columns are not decoded, its transform does not run."""
    return label_values(dataset.select_columns([name]).with_format("numpy")[:][name], f"{name} labels")


def read_class_names(dataset: Any, num_classes: int | None = None) -> ClassNames | None:
    """The first ``num_classes`` names that a data set knows (``None``: all), or ``None`` if it knows fewer.

    They are in its ``.classes``, ``.class_to_idx`` or ``.id2label``, or in the feature of its label column.
    """
    if isinstance(dataset, Subset):
        return read_class_names(dataset.dataset, num_classes)
    if isinstance(dataset, ConcatDataset):
        return read_class_names(dataset.datasets[0], num_classes)
    if is_hugging_face(dataset):
        names: Any = getattr(dataset.features[label_column(dataset, None, "class_names")], "names", None)
    else:
        known = (getattr(dataset, name, None) for name in ("classes", "class_to_idx", "id2label"))
        names = next((names for names in known if isinstance(names, (list, tuple, np.ndarray, Mapping))), None)
    if names is None or num_classes is None:
        return None if names is None else names if isinstance(names, Mapping) else list(map(str, names))
    # Of a list, names beyond the classes that there are do not count, also if one is there twice.
    by_id = names_by_id(names) if isinstance(names, Mapping) else dict(enumerate(map(str, names)))
    return [by_id[i] for i in range(num_classes)] if all(i in by_id for i in range(num_classes)) else None
