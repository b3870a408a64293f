"""Sources over what a user already has: map-style data sets, or a whole LightningDataModule."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.handles import is_factory, warn_of_handles
from lightning_cl.datamodules.sources.items import replace_label
from lightning_cl.datamodules.sources.label_map import LabelMap, check_label_map, label_values, map_labels
from lightning_cl.datamodules.sources.labels import ClassNames
from lightning_cl.datamodules.sources.targets import (
    check_indexed,
    is_hugging_face,
    label_column,
    read_class_names,
    read_targets,
)

if TYPE_CHECKING:
    from lightning_cl.namespace import LightningDataModule


_BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class _WrappedSource(Source):
    """Base of the sources whose items come out of a data set; only labels that were mapped are replaced in them."""

    def __init__(
        self,
        train_targets: Any,
        test_targets: Any,
        class_names: ClassNames | None,
        train_domains: Any,
        test_domains: Any,
        domain_names: Sequence[str] | None,
        label_map: LabelMap | None,
        classes: bool = True,
    ) -> None:
        check_label_map(label_map)
        if not classes and not (train_targets is None and test_targets is None):
            raise ValueError(
                "`train_targets` and `test_targets` give classes, but `classes=False` says that there are none; leave "
                "out one or the other."
            )
        self.classes = classes
        self._targets = {"train": train_targets, "test": test_targets}
        self._class_names, self._domain_names, self.label_map = class_names, domain_names, label_map
        self._domains = {"train": train_domains, "test": test_domains}
        self._data: dict[str, Any] = {}
        self._factories: dict[str, Callable[[], Any]] = {}
        self._process: int | None = None
        self._mapped = False

    def _wrap(self, train: Any, test: Any) -> None:
        given = {"train": train, "test": test}
        self._factories = {split: data for split, data in given.items() if is_factory(data)}
        data = {split: part() if split in self._factories else part for split, part in given.items()}
        for split, part in data.items():
            check_indexed(part, split)
        if not self.classes:
            self._data, self._process = data, os.getpid()
            domains = {f"{split}_domains": ids for split, ids in self._domains.items()}
            return self._describe_without_classes(
                len(data["train"]), len(data["test"]), **domains, domain_names=self._domain_names
            )
        labels = [self._labels(part, split) for split, part in data.items()]
        names = self._class_names
        if names is None:
            names = self._own_names(data["train"], labels)
        mapped = map_labels(labels[0], labels[1], names, self.label_map, ("train_targets", "test_targets"))
        self._data, self._mapped, self._process = data, mapped.changed, os.getpid()
        self._label_keys = {
            split: label_column(part, None, f"{split}_targets")
            for split, part in data.items()
            if mapped.changed and is_hugging_face(part)
        }
        self._describe(
            mapped.train, mapped.test, mapped.names, self._domains["train"], self._domains["test"], self._domain_names
        )

    def _own_names(self, train: Any, labels: Sequence[Any]) -> ClassNames | None:
        """Names that the training data set knows for integer labels."""
        if any(part.dtype.kind == "U" for part in labels):
            return None
        if self.label_map is not None:
            return read_class_names(train)
        highest = max((int(ids.max()) for ids in labels if len(ids)), default=-1)
        return read_class_names(train, highest + 1)

    def _labels(self, dataset: Any, split: str) -> Any:
        given, argument = self._targets[split], f"{split}_targets"
        labels = read_targets(dataset, argument) if given is None else label_values(given, argument)
        if len(labels) != len(dataset):
            raise ValueError(
                f"the {split} data set has {len(dataset)} items but {len(labels)} labels; pass `{argument}=` with one "
                "integer per item."
            )
        return labels

    def item(self, split: Split, index: int) -> Any:
        """Item of the wrapped data set, unchanged but for a label that was mapped."""
        if self._process != os.getpid():
            self._enter_process()
        item = self._data[split][index]
        if not self._mapped:
            return item
        label = int((self.train_labels if split == "train" else self.test_labels)[index])
        return replace_label(item, lambda _: label, self._label_keys.get(split))

    def _enter_process(self) -> None:
        """Open anew, in a data worker, what is given by a function."""
        self._process = os.getpid()
        for split, data in self._data.items():
            if split not in self._factories:
                warn_of_handles(data, split)
        self._data.update({split: make() for split, make in self._factories.items()})

    def __getstate__(self) -> dict[str, Any]:
        kept = {split: data for split, data in self._data.items() if split not in self._factories}
        return {**self.__dict__, "_data": kept, "_process": None if self._factories else self._process}


class DatasetSource(_WrappedSource):
    """Any pair of map-style data sets; items (tuple, list or dictionary) are passed through, with mapped labels.

    The data sets' own transforms stay in force, so there is no default transform.

    Args:
        train: Training data set with ``__len__`` and ``__getitem__``, a ``datasets.Dataset`` among them; or a function
            that makes it, which every data worker calls for itself (LMDB and HDF5 files must be opened so).
        test: Test data set, as ``train``.
        train_targets: ``(N_train,)`` integers from 0, or class names, as a list, array, tensor or pandas column;
            ``None``: read from ``.targets``, ``.labels`` or the label column, without decoding an item.
        test_targets: ``(N_test,)``, as ``train_targets``.
        class_names: One per class, ``{name: id}`` or ``{id: name}``; ``None``: as ``train`` has them in ``.classes``,
            ``.class_to_idx`` or ``.id2label``, else the numbers. Targets that are names get ids in this order, else in
            sorted order.
        train_domains: ``(N_train,)`` integers from 0; ``None``: there are no domains.
        test_domains: ``(N_test,)`` integers from 0.
        domain_names: One per domain; ``None``: the numbers.
        label_map: ``"compact"`` numbers the labels of the training split 0..C-1 in ascending order, and keeps their
            names, where labels leave gaps or start at 1; the labels in the items are replaced alike.
        classes: ``False``: samples have no class (regression, detection, language modelling), so they come by domain
            or in order, in ``DomainIncremental``, ``SampleIncremental`` or ``Joint``.
        collate_fn: Makes a batch of a list of items; ``None``: PyTorch's ``default_collate``. ``as_lists`` leaves the
            images and boxes of detection as they are.

    Raises:
        ValueError: In :meth:`setup`, if labels cannot be read, are not one integer ``0 .. C-1`` or name per item, a
            class has no training samples or the name of another, or items have no positions.
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        train_targets: Any = None,
        test_targets: Any = None,
        class_names: ClassNames | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
        label_map: LabelMap | None = None,
        classes: bool = True,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        super().__init__(
            train_targets, test_targets, class_names, train_domains, test_domains, domain_names, label_map, classes
        )
        self._given, self.collate_fn = (train, test), collate_fn

    def _open(self) -> None:
        self._wrap(*self._given)


class DataModuleSource(_WrappedSource):
    """The data sets behind an existing LightningDataModule's train and test (or validation) loaders.

    Its ``prepare_data`` and ``setup`` run, and its loaders' ``.dataset`` and ``collate_fn`` are used; batch sizes and
    samplers come from the stream. Its batch hooks (``on_before_batch_transfer``, ``transfer_batch_to_device``,
    ``on_after_batch_transfer``) are called, in the place of the module's as ever, behind the samples that replay joins.

    Args:
        datamodule: The data module.
        evaluate: Loader that the test split is taken from: ``"test"`` or ``"val"``; ``None``: the test loader if the
            data module defines one, else the validation loader.
        train_targets: ``(N_train,)`` integers from 0 or class names; ``None``: read from ``.targets`` or ``.labels``,
            also through ``Subset``, without decoding an item.
        test_targets: ``(N_test,)``, as ``train_targets``.
        class_names: As in :class:`DatasetSource`.
        train_domains: ``(N_train,)`` integers from 0; ``None``: there are no domains.
        test_domains: ``(N_test,)`` integers from 0.
        domain_names: One per domain; ``None``: the numbers.
        label_map: ``"compact"`` numbers the labels of the training split 0..C-1 in ascending order, and keeps their
            names, where labels leave gaps or start at 1; the labels in the items are replaced alike.

    Raises:
        ValueError: In :meth:`setup`, if a loader is missing or is not a single ``DataLoader``, or for the same reasons
            as :class:`DatasetSource`.
    """

    def __init__(
        self,
        datamodule: LightningDataModule,
        evaluate: Literal["test", "val"] | None = None,
        train_targets: Any = None,
        test_targets: Any = None,
        class_names: ClassNames | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
        label_map: LabelMap | None = None,
    ) -> None:
        super().__init__(train_targets, test_targets, class_names, train_domains, test_domains, domain_names, label_map)
        if evaluate not in (None, "test", "val"):
            raise ValueError(f"`evaluate` is {evaluate!r}; expected 'test', 'val' or None.")
        self.datamodule, self.evaluate = datamodule, evaluate
        hooks = (name for name in _BATCH_HOOKS if _defines(datamodule, name))
        self.batch_hooks = {name: partial(_with_trainer, datamodule, name) for name in hooks}

    def prepare(self) -> None:
        """Run the data module's ``prepare_data``."""
        self.datamodule.prepare_data()

    def _open(self) -> None:
        evaluate = self.evaluate or ("test" if _defines(self.datamodule, "test_dataloader") else "val")
        self.datamodule.setup("fit")
        if evaluate == "test":
            self.datamodule.setup("test")
        train = self._loader("train_dataloader")
        test = self._loader(f"{evaluate}_dataloader")
        self.collate_fn = train.collate_fn
        self._wrap(train.dataset, test.dataset)

    def _loader(self, name: str) -> Any:
        if not _defines(self.datamodule, name):
            raise ValueError(
                f"{type(self.datamodule).__name__} defines no `{name}`; add one, choose another with `evaluate=`, or "
                "give the data sets to `DatasetSource(train, test)`."
            )
        loader: Any = getattr(self.datamodule, name)()
        if not hasattr(loader, "dataset") or not isinstance(getattr(loader, "collate_fn", None), Callable):  # type: ignore[arg-type]
            raise ValueError(
                f"`{type(self.datamodule).__name__}.{name}()` returned {type(loader).__name__}; one DataLoader is "
                "expected. Give the data sets to `DatasetSource(train, test)` instead."
            )
        return loader


def _with_trainer(datamodule: LightningDataModule, name: str, trainer: Any, *args: Any) -> Any:
    """Call a hook, which may ask for the Trainer; it is not kept, so that sources can be pickled."""
    known, datamodule.trainer = datamodule.trainer, trainer
    try:
        return getattr(datamodule, name)(*args)
    finally:
        datamodule.trainer = known


def _defines(datamodule: Any, name: str) -> bool:
    # By qualified name, so that it holds for `lightning` and `pytorch_lightning` alike.
    return not getattr(datamodule, name).__qualname__.startswith("DataHooks.")
