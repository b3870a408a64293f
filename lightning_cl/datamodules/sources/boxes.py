"""Images with boxes, and masks where there are any, each of which has a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.collate import as_lists
from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.labels import ClassNames, as_ids
from lightning_cl.datamodules.sources.multi_label import SourceOfSets
from lightning_cl.datamodules.sources.targets import check_indexed
from lightning_cl.sample_list import SampleList


class BoxSource(SourceOfSets):
    """Detection and instance segmentation: map-style data sets of ``(image, {"boxes": ..., "labels": ..., ...})``.

    For ``MultiLabelIncremental``, in which an image comes in every task that holds one of its classes; boxes that come
    by domain are ``DatasetSource(classes=False, collate_fn=as_lists)``. While training, the boxes of classes that the
    current task does not hold are left out, and else those of classes not seen yet; so are masks and all other tensors
    with an entry for each label but ``image_id``, ``size`` and ``orig_size``, which are of the image. Batches are lists
    of images and of such dictionaries, as torchvision's detectors take them; the items' own transforms stay in force.

    Args:
        train: Training data set.
        test: Test data set.
        train_classes: For each training image the class ids of its boxes, integers from 0; read without an item.
        test_classes: For each test image, as ``train_classes``.
        class_names: One per class; ``None``: the numbers.
        first_label: What ``labels`` of the items say for class 0; torchvision's detectors keep 0 for the background.
        collate_fn: Makes a batch ``(images, targets)`` of a list of items.

    Raises:
        ValueError: In :meth:`setup`, if there is not one list of class ids for each image, an image has none, or a
            class has no training image; while training, if an item's labels are none of its classes.
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        train_classes: Sequence[Any],
        test_classes: Sequence[Any],
        class_names: ClassNames | None = None,
        first_label: int = 1,
        collate_fn: Callable[[list[Any]], Any] | None = as_lists,
    ) -> None:
        self._data = {"train": train, "test": test}
        self._classes, self._names, self.first_label = (train_classes, test_classes), class_names, first_label
        self.collate_fn = collate_fn
        self.batch_hooks: Mapping[str, Any] = {"on_after_batch_transfer": partial(hide_boxes, first_label)}

    def _open(self) -> None:
        for (split, data), given in zip(self._data.items(), self._classes, strict=True):
            check_indexed(data, split)
            if len(given) != len(data):
                raise ValueError(
                    f"the {split} data set has {len(data)} images, but `{split}_classes` {len(given)} lists of class "
                    "ids; give one for each."
                )
        found = [[as_ids(ids, "classes") for ids in given] for given in self._classes]
        count = 1 + max((int(ids.max()) for ids in (*found[0], *found[1]) if len(ids)), default=0)
        train, test, names = self.read_sets(sets_of(found[0], count), sets_of(found[1], count), self._names)
        self._describe(train, test, names)

    def item(self, split: Split, index: int) -> Any:
        """``(image, target)`` as the data set has it.

        Raises:
            ValueError: If a label is none of the classes that were given for the image.
        """
        item = self._data[split][index]
        given = (torch.as_tensor(item[1]["labels"]) - self.first_label).unique().tolist()
        known = self.targets(split)[index].nonzero().flatten().tolist()
        if not set(given) <= set(known):
            raise ValueError(
                f"image {index} of the {split} split has boxes of the classes {given} (labels from "
                f"{self.first_label}), but `{split}_classes` says {known}; give those that it has, or `first_label`."
            )
        return item


def sets_of(ids: Sequence[Tensor], count: int) -> Tensor:
    """``(N, count)`` bool: which classes each of ``N`` lists of class ids has."""
    sets = torch.zeros(len(ids), count, dtype=torch.bool)
    for row, members in enumerate(ids):
        sets[row, members] = True
    return sets


def hide_boxes(first_label: int, trainer: Any, batch: Any, *_: Any) -> Any:
    """A batch without the boxes of classes of other tasks while training, else without those of classes not seen."""
    images, targets = batch
    stream = trainer.datamodule
    known = torch.tensor(list(stream.task.classes if trainer.training else stream.exposed_classes)) + first_label
    return images, SampleList(kept_boxes(target, known) for target in targets)


#: Tensors of one or two numbers that are of the image, however many boxes it has.
OF_IMAGE = {"image_id", "size", "orig_size"}


def kept_boxes(target: Mapping[str, Any], labels: Tensor) -> dict[str, Any]:
    """A target with the boxes of the given labels only, and what belongs to them."""
    own = target["labels"]
    keep = torch.isin(own, labels.to(own.device))
    per_box = {
        name
        for name, part in target.items()
        if name not in OF_IMAGE and isinstance(part, Tensor) and part.ndim and len(part) == len(own)
    }
    return {name: part[keep] if name in per_box else part for name, part in target.items()}
