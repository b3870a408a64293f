"""Sources over what a user already has: map-style data sets, or a whole LightningDataModule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from lightning_cl.datamodules.sources.base import Source, Split, as_ids

if TYPE_CHECKING:
    from lightning import LightningDataModule


def read_targets(dataset: Any, argument: str) -> Tensor:
    """Labels of a data set, ``(N,)`` int64, without fetching an item.

    They come from ``.targets``, ``.labels`` or the second tensor of a ``TensorDataset``; subsets and concatenations
    of such data sets are followed.

    Args:
        dataset: A map-style data set.
        argument: Name of the argument that takes the labels, for the message.

    Raises:
        ValueError: If the labels cannot be read this way, or are not integers.
    """
    if isinstance(dataset, Subset):
        return read_targets(dataset.dataset, argument)[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, ConcatDataset):
        return torch.cat([read_targets(part, argument) for part in dataset.datasets])
    for name in ("targets", "labels"):
        if getattr(dataset, name, None) is not None:
            return as_ids(getattr(dataset, name), f"{type(dataset).__name__}.{name}")
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return as_ids(dataset.tensors[1], "TensorDataset.tensors[1]")
    raise ValueError(
        f"the labels of {type(dataset).__name__} cannot be read without decoding its items, because it has neither "
        f"`.targets` nor `.labels`; pass `{argument}=` with one integer per item."
    )


def read_class_names(dataset: Any, num_classes: int) -> list[str] | None:
    """The first ``num_classes`` names in the data set's ``.classes``, or ``None`` if it has no such list."""
    if isinstance(dataset, Subset):
        return read_class_names(dataset.dataset, num_classes)
    if isinstance(dataset, ConcatDataset):
        return read_class_names(dataset.datasets[0], num_classes)
    names = getattr(dataset, "classes", None)
    if not isinstance(names, (list, tuple)) or len(names) < num_classes:
        return None
    return [str(name) for name in names[:num_classes]]


class _WrappedSource(Source):
    """Base of the sources whose items come out of a data set unchanged."""

    def __init__(
        self,
        train_targets: Any,
        test_targets: Any,
        class_names: Sequence[str] | None,
        train_domains: Any,
        test_domains: Any,
        domain_names: Sequence[str] | None,
    ) -> None:
        self._targets = {"train": train_targets, "test": test_targets}
        self._class_names, self._domain_names = class_names, domain_names
        self._domains = {"train": train_domains, "test": test_domains}
        self._data: dict[str, Any] = {}

    def _wrap(self, train: Any, test: Any) -> None:
        labels = {"train": self._labels(train, "train"), "test": self._labels(test, "test")}
        names = self._class_names
        if names is None:
            highest = max((int(ids.max()) for ids in labels.values() if len(ids)), default=-1)
            names = read_class_names(train, highest + 1)
        self._data = {"train": train, "test": test}
        self._describe(
            labels["train"], labels["test"], names, self._domains["train"], self._domains["test"], self._domain_names
        )

    def _labels(self, dataset: Any, split: str) -> Tensor:
        given, argument = self._targets[split], f"{split}_targets"
        labels = read_targets(dataset, argument) if given is None else as_ids(given, argument)
        if len(labels) != len(dataset):
            raise ValueError(
                f"the {split} data set has {len(dataset)} items but {len(labels)} labels; pass `{argument}=` with one "
                "integer per item."
            )
        return labels

    def item(self, split: Split, index: int) -> Any:
        """Item of the wrapped data set, unchanged."""
        return self._data[split][index]


class DatasetSource(_WrappedSource):
    """Any pair of map-style data sets; items (tuple, list or dictionary) are passed through unchanged.

    The data sets' own transforms stay in force, so there is no default transform.

    Args:
        train: Training data set with ``__len__`` and ``__getitem__``.
        test: Test data set.
        train_targets: ``(N_train,)`` integers from 0; ``None``: read from ``.targets`` or ``.labels``, without
            decoding an item.
        test_targets: ``(N_test,)`` integers, as ``train_targets``.
        class_names: One per class; ``None``: ``train.classes``, else the numbers.
        train_domains: ``(N_train,)`` integers from 0; ``None``: there are no domains.
        test_domains: ``(N_test,)`` integers from 0.
        domain_names: One per domain; ``None``: the numbers.

    Raises:
        ValueError: In :meth:`setup`, if labels cannot be read, are not one integer ``0 .. C-1`` per item, or a class
            has no training samples.
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        train_targets: Any = None,
        test_targets: Any = None,
        class_names: Sequence[str] | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(train_targets, test_targets, class_names, train_domains, test_domains, domain_names)
        self._given = train, test

    def _open(self) -> None:
        self._wrap(*self._given)


class DataModuleSource(_WrappedSource):
    """The data sets behind an existing LightningDataModule's train and test (or validation) loaders.

    Its ``prepare_data`` and ``setup`` run, and its loaders' ``.dataset`` and ``collate_fn`` are used; batch sizes and
    samplers come from the stream, and its batch hooks (``on_after_batch_transfer``, ...) do not run.

    Args:
        datamodule: The data module.
        evaluate: Loader that the test split is taken from: ``"test"`` or ``"val"``; ``None``: the test loader if the
            data module defines one, else the validation loader.
        train_targets: ``(N_train,)`` integers from 0; ``None``: read from ``.targets`` or ``.labels``, also through
            ``Subset``, without decoding an item.
        test_targets: ``(N_test,)`` integers, as ``train_targets``.
        class_names: One per class; ``None``: the training data set's ``.classes``, else the numbers.
        train_domains: ``(N_train,)`` integers from 0; ``None``: there are no domains.
        test_domains: ``(N_test,)`` integers from 0.
        domain_names: One per domain; ``None``: the numbers.

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
        class_names: Sequence[str] | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(train_targets, test_targets, class_names, train_domains, test_domains, domain_names)
        if evaluate not in (None, "test", "val"):
            raise ValueError(f"`evaluate` is {evaluate!r}; expected 'test', 'val' or None.")
        self.datamodule, self.evaluate = datamodule, evaluate

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


def _defines(datamodule: Any, name: str) -> bool:
    # By qualified name, so that it holds for `lightning` and `pytorch_lightning` alike.
    return not getattr(datamodule, name).__qualname__.startswith("DataHooks.")
