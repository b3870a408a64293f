"""What every source states: labels, class names and domains of two splits, and how one item is fetched."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from lightning_cl.datamodules.sources.labels import ClassNames, as_ids, check_ids, default_names, ordered_names
from lightning_cl.datamodules.superclasses import read_superclasses, with_own_level
from lightning_cl.datamodules.task import NO_CLASSES

Split = Literal["train", "test"]
_KNOWN_AFTER_SETUP = (
    "train_labels",
    "test_labels",
    "train_domains",
    "test_domains",
    "domain_names",
    "class_names",
    "num_classes",
)


_Item = TypeVar("_Item", bound=Callable[..., Any])


def draws_nothing(item: _Item) -> _Item:
    """Mark a :meth:`Source.item` that uses no random generator, so that none need be seeded for each sample."""
    setattr(item, "draws_nothing", True)  # noqa: B010  (a function has no such attribute for a type checker)
    return item


class Source(ABC):
    """Images with labels in two splits, ``"train"`` and ``"test"``; a scenario says how they arrive.

    Construction does no input or output. A new source overrides :meth:`_open` (which calls :meth:`_describe`) and
    :meth:`item`, and :meth:`prepare` if there is something to download. Sources can be pickled.

    Attributes:
        mean: Per-channel mean of images in [0, 1] used by the default transforms; ``None``: not normalised.
        std: Per-channel standard deviation, as ``mean``.
        image_size: Height and width in pixels after the default transforms; ``None`` if not known before :meth:`setup`.
        collate_fn: Makes a batch of a list of transformed items; ``None``: PyTorch's ``default_collate``.
        needs_test: A task of new classes without evaluation samples is a mistake.
        sequential: Training items are read one after the other from the start; going back is slow.
        batch_hooks: Lightning's batch hooks of a wrapped data module, by name, called as ``hook(trainer, batch, ...)``.
        train_labels: ``(N_train,)`` int64 in ``0 .. num_classes - 1``, read without decoding an image.
        test_labels: ``(N_test,)`` int64, as ``train_labels``.
        train_domains: ``(N_train,)`` int64 in ``0 .. len(domain_names) - 1``, or ``None``: there are no domains.
        test_domains: ``(N_test,)`` int64, as ``train_domains``.
        domain_names: One name per domain, or ``None``.
        class_names: One name per class, indexed by label.
        train_sets: ``(N_train, C)`` bool, which classes each sample has, of a source with several labels a sample;
            ``None``: each has one.
        test_sets: ``(N_test, C)`` bool, as ``train_sets``.
        levels: The label tree, level by level, coarsest first: for each class the number of its superclass there, at
            the last level its own; empty: there are no superclasses. Where samples have labels of several levels, all
            of them are classes, which the numbers are ids of, and -1 stands below a class's own level.
        superclass_names: For each level but the last the names of the superclasses.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None
    batch_hooks: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    needs_test: bool = True
    sequential: bool = False

    # Facts about the data, known after `setup`.
    train_labels: Tensor
    test_labels: Tensor
    train_domains: Tensor | None
    test_domains: Tensor | None
    domain_names: tuple[str, ...] | None
    class_names: tuple[str, ...]
    train_sets: Tensor | None = None
    test_sets: Tensor | None = None
    levels: tuple[tuple[int, ...], ...] = ()
    superclass_names: tuple[tuple[str, ...], ...] = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in _KNOWN_AFTER_SETUP:
                raise AttributeError(
                    f"`{type(self).__name__}.{name}` is known after `setup()`; call `prepare()` (downloads) and "
                    "`setup()` first, or let ContinualDataModule do it."
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def has_classes(self) -> bool:
        """Whether samples have classes (else all count as class 0); known after :meth:`setup`."""
        return self.class_names != NO_CLASSES

    @property
    def multi_label(self) -> bool:
        """Whether a sample has several labels; known after :meth:`setup`."""
        return self.train_sets is not None

    def check_single_label(self, who: str) -> None:
        """Refuse to be taken apart or joined by what knows one label a sample.

        Args:
            who: What does so.

        Raises:
            ValueError: If a sample has several labels.
        """
        if self.multi_label:
            raise ValueError(
                f"{who} is for sources with one label a sample, but {type(self).__name__} has several; give a source "
                "of its own for each part."
            )

    def targets(self, split: Split) -> Tensor:
        """``(N,)`` int64 labels of a split; or ``(N, C)`` bool, of which a sample has several."""
        labels, sets = (self.train_labels, self.train_sets) if split == "train" else (self.test_labels, self.test_sets)
        return labels if sets is None else sets

    @property
    def num_classes(self) -> int:
        """Number of classes of the source; known after :meth:`setup`."""
        return len(self.class_names)

    def prepare(self) -> None:  # noqa: B027 (most sources have nothing to prepare)
        """Download what is missing. Called on one process only, so it must not set attributes."""

    def setup(self) -> None:
        """Open the data and learn its labels; calling it again does nothing."""
        if "train_labels" not in self.__dict__:
            self._open()

    def _open(self) -> None:
        """Open the data, then call :meth:`_describe`."""
        raise NotImplementedError(f"{type(self).__name__} must override `_open`.")

    def _describe(
        self,
        train_labels: Any,
        test_labels: Any,
        class_names: ClassNames | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
        superclass_of_class: Any = None,
        superclass_names: Sequence[str] | None = None,
    ) -> None:
        """Check the facts about the data and publish them as attributes.

        Raises:
            ValueError: If labels or domains are not integers ``0 .. C-1``, a class or a domain has no training
                sample, two classes have one name, or domains are given for one split only or in another number than
                the labels; or superclasses do not make a tree.
        """
        train, test = as_ids(train_labels, "train labels"), as_ids(test_labels, "test labels")
        names = ordered_names(class_names) if class_names is not None else default_names(train, test)
        if not len(train):
            raise ValueError(f"{type(self).__name__} has no training samples.")
        self.check_classes(train, test, names)
        self._describe_domains(train_domains, test_domains, domain_names, len(train), len(test))
        if superclass_of_class is not None:
            ancestors, self.superclass_names = read_superclasses(superclass_of_class, names, superclass_names)
            self.levels = with_own_level(ancestors)
        self.class_names, self.test_labels, self.train_labels = names, test, train

    def _describe_without_classes(self, num_train: int, num_test: int, **domains: Any) -> None:
        """As :meth:`_describe`, of samples that have no class."""
        train, test = (torch.zeros(count, dtype=torch.long) for count in (num_train, num_test))
        self._describe(train, test, NO_CLASSES, **domains)

    def check_classes(self, train: Tensor, test: Tensor, names: Sequence[str]) -> None:
        """Check that labels are ids of classes, and that each class has a training sample.

        Raises:
            ValueError: If not.
        """
        check_ids(train, test, names, "class")

    def _describe_domains(
        self, train: Any, test: Any, names: Sequence[str] | None, num_train: int, num_test: int
    ) -> None:
        self.train_domains = self.test_domains = self.domain_names = None
        if train is None and test is None:
            return
        if train is None or test is None:
            given, missing = ("test", "train") if train is None else ("train", "test")
            raise ValueError(f"domains are given for the {given} split only; give `{missing}_domains` too.")
        train, test = as_ids(train, "train_domains"), as_ids(test, "test_domains")
        for split, ids, count in (("train", train, num_train), ("test", test, num_test)):
            if len(ids) != count:
                raise ValueError(f"`{split}_domains` has {len(ids)} entries but there are {count} {split} samples.")
        domain_names = tuple(map(str, names)) if names is not None else default_names(train, test)
        check_ids(train, test, domain_names, "domain")
        self.train_domains, self.test_domains, self.domain_names = train, test, domain_names

    @abstractmethod
    def item(self, split: Split, index: int) -> Any:
        """Raw item of a split: ``(image, label)``, or whatever a wrapped data set returns.

        The image is a PIL image or a uint8 tensor ``(C, H, W)``; no transform has been applied to it.
        """

    def rows(self, split: Split, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """Inputs and labels of several samples at once, as :meth:`item` has them; ``None``: read them one by one."""
        return None

    def file_names(self, split: Split) -> Sequence[str] | None:
        """Name of each image as published lists have it, below the split's folder; ``None``: images have no names."""
        return None

    def train_transform(self) -> Callable[[Any], Any] | None:
        """Default transform of a training image, with augmentation; ``None``: leave items as they are."""
        return None

    def eval_transform(self) -> Callable[[Any], Any] | None:
        """Default transform of an evaluation image, deterministic; ``None``: leave items as they are."""
        return None

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the source's class name, class names, labels and domains.

        It identifies the data cheaply: pixels and paths do not enter, so it is the same on every machine.
        """
        digest = hashlib.sha256()
        for text in (type(self).__name__, *self.class_names, "|", *(self.domain_names or ())):
            digest.update(text.encode() + b"\0")
        for ids in (self.train_labels, self.test_labels, self.train_domains, self.test_domains):
            data = b"" if ids is None else ids.numpy().astype("<i8").tobytes()
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()
