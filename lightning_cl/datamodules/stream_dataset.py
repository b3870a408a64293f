"""Make batches of one split of a source: items, their transforms, and how they are put together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_cl.datamodules.batch_form import BatchKeys, with_names, with_transformed, without_target
from lightning_cl.datamodules.collate import stacked
from lightning_cl.datamodules.sources.array_layout import TableTransform
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.extended import ByPart
from lightning_cl.datamodules.sources.images import ImageTransform

Key = tuple[int, int | None]  # position in the split, seed of the sample's augmentation (None: not augmented)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


class StreamDataset(Dataset[Any]):
    """Batches of transformed items of one split of a source.

    Augmentation is drawn from a seed per sample and epoch, so it is the same for any number of workers and processes
    and after any resume; a ``collate_fn`` that draws (CutMix, MixUp) goes on with the seed of the last sample. The
    global generators are left as they were.

    Args:
        source: Where the items come from.
        split: ``"train"`` or ``"test"``.
        transform: Applied to the image part of an item.
        batch_keys: Places of inputs and targets; names make dictionaries of tuples.
        collate_fn: Makes a batch of a list of items; ``None``: PyTorch's ``default_collate``.
        argument: What the user calls the transform, in errors.
        hidden: ``(N,)`` bool: samples whose target is replaced by ``HIDDEN_LABEL``; ``None``: none.
    """

    def __init__(
        self,
        source: Source,
        split: Split,
        transform: Callable[[Any], Any] | None,
        batch_keys: BatchKeys | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        argument: str = "the transform",
        hidden: torch.Tensor | None = None,
    ) -> None:
        self.source, self.split, self.transform, self.batch_keys = source, split, transform, batch_keys
        self.collate_fn, self.argument, self.hidden = collate_fn, argument, hidden

    def __len__(self) -> int:
        return len(self.source.train_labels if self.split == "train" else self.source.test_labels)

    def __getitem__(self, key: Key) -> Any:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """One batch; called by the loader with all of its keys."""
        table = self._of_table([index for index, _ in keys])
        if table is not None:
            return table
        if all(seed is None for _, seed in keys) or self._draws_nothing:
            return self._collated(self._items([(index, None) for index, _ in keys]))
        with _random_state_kept():
            return self._collated(self._items(keys))

    def _of_table(self, places: list[int]) -> list[Tensor] | None:
        """The batch of a table, which is read at once; ``None``: it is made of items."""
        if not isinstance(self.transform, TableTransform):
            return None
        if self.collate_fn is not None or self.hidden is not None or self.batch_keys is not None:
            return None
        found = self.source.rows(self.split, torch.tensor(places))
        return None if found is None else [self.transform(found[0]), found[1]]

    @property
    def _draws_nothing(self) -> bool:
        """Whether all that makes a batch is known to use no random generator."""
        transform = self.transform
        still = transform is None or (isinstance(transform, (ImageTransform, TableTransform)) and not transform.draws)
        return still and self.collate_fn is None and hasattr(type(self.source).item, "draws_nothing")

    def _collated(self, items: list[Any]) -> Any:
        items = items if self.batch_keys is None else [with_names(item, self.batch_keys) for item in items]
        return stacked(items, self.split) if self.collate_fn is None else self.collate_fn(items)

    def _items(self, keys: Sequence[Key]) -> list[Any]:
        transform = self.transform
        if not isinstance(transform, ImageTransform):
            return [self._item(index, seed, self._transform_at(index)) for index, seed in keys]
        images: list[Tensor] = []

        def started(image: Any) -> Any:
            images.append(transform.each(image))
            return image

        items = [self._item(index, seed, started) for index, seed in keys]
        together = transform.together(images)
        made = iter(together if self.collate_fn is None else [image.clone() for image in together])  # may be kept
        return [with_transformed(item, lambda _: next(made), self.batch_keys) for item in items]

    def _transform_at(self, index: int) -> Callable[[Any], Any] | None:
        transform = self.transform.at(self.split, index) if isinstance(self.transform, ByPart) else self.transform
        return None if transform is None else partial(self._checked, transform, index)

    def _item(self, index: int, seed: int | None, transform: Callable[[Any], Any] | None) -> Any:
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)
        item = self.source.item(self.split, index)
        if self.hidden is not None and self.hidden[index]:
            item = without_target(item, self.batch_keys)
        return item if transform is None else with_transformed(item, transform, self.batch_keys)

    def _checked(self, transform: Callable[[Any], Any], index: int, image: Any) -> Any:
        made = transform(image)
        if made is None:
            raise ValueError(
                f"{self.argument} gave None for sample {index} of the {self.split} split; expected the "
                "transformed image, so let the function return it."
            )
        return made
