"""Images with several labels each, held in arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sources.arrays import ArraySource
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.labels import ClassNames, default_names, ordered_names


class SourceOfSets(Source):
    """Base of sources with a set of classes for each sample, in ``train_sets`` and ``test_sets``."""

    def read_sets(self, train: Any, test: Any, names: ClassNames | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Take ``(N, C)`` zeros and ones of both splits; the rarest class of each sample, by which it is counted.

        Args:
            train: Of the training split.
            test: Of the test split.
            names: One per column; ``None``: the numbers.

        Raises:
            ValueError: If they are no such matrices, or names or columns differ in number.
        """
        self.train_sets, self.test_sets = as_sets(train, "train labels"), as_sets(test, "test labels")
        widths = self.train_sets.shape[1], self.test_sets.shape[1]
        if widths[0] != widths[1]:
            raise ValueError(f"train labels have {widths[0]} columns and test labels {widths[1]}; give one a class.")
        names = default_names(torch.tensor([widths[0] - 1])) if names is None else ordered_names(names)
        if len(names) != widths[0]:
            raise ValueError(f"there are {len(names)} class names, but labels have {widths[0]} columns; give one each.")
        counts = self.train_sets.sum(dim=0)
        rarest = [
            torch.where(sets, counts, len(self.train_sets) + 1).argmin(dim=1)
            for sets in (self.train_sets, self.test_sets)
        ]
        return rarest[0], rarest[1], names

    def check_classes(self, train: Tensor, test: Tensor, names: Sequence[str]) -> None:
        """Check that each class has a training image."""
        assert self.train_sets is not None
        empty = (~self.train_sets.any(dim=0)).nonzero().flatten().tolist()
        if empty:
            shown = ", ".join(f"{i} ({names[i]!r})" for i in empty[:10])
            raise ValueError(f"the classes {shown} have no training image; leave their columns out.")

    def digest(self) -> str:
        """As of every source, with all labels."""
        digest = hashlib.sha256(super().digest().encode())
        for split in ("train", "test"):
            digest.update(self.targets(split).numpy().tobytes() + b"|")
        return digest.hexdigest()


class MultiLabelSource(SourceOfSets, ArraySource):
    """Images each of which has some of the classes (VOC, COCO), in memory or in one ``.npz`` file.

    A target is a float32 vector ``(C,)`` of zeros and ones, for ``binary_cross_entropy_with_logits``. While training
    those of classes that the current task does not hold are 0, and else those of classes not seen yet: an image comes
    in every task that holds one of its classes, and each task sees its own labels only. Use it with
    ``MultiLabelIncremental``.

    Args:
        train: ``(images, labels)`` as for :class:`ArraySource`, but labels are ``(N, C)`` zeros and ones, or booleans;
            or the path of a ``.npz`` file.
        test: ``(images, labels)`` if ``train`` is.
        class_names: One per column; ``None``: as in the file, else the numbers.
        **options: ``image_size``, ``mean``, ``std``, ``augment``, ``rgb`` and ``layout`` of :class:`ArraySource`.

    Raises:
        ValueError: As :class:`ArraySource`; in :meth:`setup`, if labels are not such a matrix, a class has no training
            image, or an image has no class.
    """

    def __init__(self, train: Any, test: Any = None, class_names: ClassNames | None = None, **options: Any) -> None:
        super().__init__(train, test, class_names, **options)
        self.batch_hooks: Mapping[str, Any] = {"on_after_batch_transfer": hide_labels}

    def _read_labels(self, train: Any, test: Any, names: ClassNames | None) -> tuple[Any, Any, ClassNames | None]:
        """A label of each image, by which it is counted where one is needed: its rarest class in the training split."""
        return self.read_sets(train, test, names)

    def item(self, split: Split, index: int) -> Any:
        """``(image, labels)``: as :class:`ArraySource`, and ``(C,)`` float32 zeros and ones."""
        return super().item(split, index)[0], self.targets(split)[index].float()


def as_sets(values: Any, what: str) -> Tensor:
    """``(N, C)`` bool of a matrix of zeros and ones.

    Raises:
        ValueError: If it is none, or an image has no class.
    """
    found = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
    if found.ndim != 2 or not bool(((found == 0) | (found == 1)).all()):
        raise ValueError(
            f"{what} have the shape {tuple(found.shape)} and the type {found.dtype}; a source with several labels a "
            "sample needs a matrix (N, C) of zeros and ones. For one label a sample use `ArraySource`."
        )
    none = (~found.bool().any(dim=1)).nonzero().flatten().tolist()
    if none:
        raise ValueError(
            f"{len(none)} of the {what} have no class, the first at position {none[0]}; drop these images."
        )
    return found.bool().cpu()


def hide_labels(trainer: Any, batch: Any, *_: Any) -> Any:
    """A batch ``[images, targets]`` with zeros for classes of other tasks while training, else for those not seen."""
    images, targets = batch
    stream = trainer.datamodule
    known = torch.zeros(targets.shape[1], dtype=torch.bool, device=targets.device)
    known[list(stream.task.classes if trainer.training else stream.exposed_classes)] = True
    return [images, targets * known]
