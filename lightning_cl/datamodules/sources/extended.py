"""Several sources as one: the images of the later ones behind those of the first, with their classes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.items import replace_label

#: Whether the classes of a later source are new ones, or those of the earlier sources where the names coincide.
Matching = Literal["new", "by_name"]


def match_classes(known: Sequence[str], names: Sequence[str], matching: Matching) -> tuple[list[int], list[str]]:
    """Map the classes of a later source to their labels, and list the names of all classes then.

    Args:
        known: Names of the classes so far; they keep their numbers.
        names: Names of the source's classes, by its own labels.
        matching: ``"new"``: all of them are new, and one whose name is taken is called ``"name (2)"``; ``"by_name"``:
            one whose name is known is that class.

    Returns:
        The class id of each of the source's labels, and one name per class.

    Raises:
        ValueError: If ``matching`` is unknown, or ``"by_name"`` cannot tell since the source has a name twice.
    """
    if matching not in ("new", "by_name"):
        raise ValueError(f'`classes` is {matching!r}; give "new" or "by_name".')
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if matching == "by_name" and twice:
        raise ValueError(f'the source has several classes of the names {twice[:5]}; use `classes="new"`.')
    ids, everything = [], list(known)
    for name in names:
        if matching == "by_name" and name in known:
            ids.append(list(known).index(name))
            continue
        ids.append(len(everything))
        everything.append(_free_name(name, everything))
    return ids, everything


def _free_name(name: str, taken: Sequence[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


class ByPart:
    """The transform of the source that an image comes from."""

    def __init__(self, source: ExtendedSource, transforms: Sequence[Callable[[Any], Any] | None]) -> None:
        self.source, self.transforms = source, list(transforms)

    def __call__(self, image: Any) -> Any:
        """Refused: an image alone does not tell where it comes from."""
        raise TypeError("the transform depends on the source of an image; use `at(split, index)`.")

    def at(self, split: Split, index: int) -> Callable[[Any], Any] | None:
        """The transform of the image at a position of a split."""
        return self.transforms[self.source.locate(split, index)[0]]


class ExtendedSource(Source):
    """Sources one behind the other: positions and labels of the first stay as they are.

    Every image gets the transforms of the source that it comes from. Domains are left out.

    Args:
        parts: At least one source.
        matching: For each part but the first, how its classes are matched with the earlier ones.

    Raises:
        ValueError: In :meth:`setup`, if the sources make images of different sizes, or wrap a data module with batch
            hooks.
    """

    def __init__(self, parts: Sequence[Source], matching: Sequence[Matching]) -> None:
        self.parts, self.matching = tuple(parts), tuple(matching)

    @classmethod
    def behind(cls, source: Source, added: Source, matching: Matching) -> ExtendedSource:
        """``added`` behind ``source``, which may be extended already."""
        if isinstance(source, cls):
            return cls([*source.parts, added], [*source.matching, matching])
        return cls([source, added], [matching])

    def prepare(self) -> None:
        """Download all parts."""
        for part in self.parts:
            part.prepare()

    def _open(self) -> None:
        for part in self.parts:
            part.setup()
            part.check_single_label("`extend`")
        sizes = [part.image_size for part in self.parts]
        if len({size for size in sizes if size is not None}) > 1:
            raise ValueError(
                f"the sources make images of different sizes ({', '.join(map(str, sizes))}), which do not fit into one "
                "batch; give them the same `image_size`."
            )
        hooked = [f"{type(part).__name__} ({', '.join(part.batch_hooks)})" for part in self.parts if part.batch_hooks]
        if hooked:
            raise ValueError(
                f"the data module in {hooked[0]} has batch hooks of its own, which would change the samples of all "
                "parts of an extended stream; do in the data set's transforms what they do."
            )
        self.image_size = sizes[0]
        names: list[str] = list(self.parts[0].class_names)
        #: For each part the class id of each of its own labels.
        self.class_ids = [torch.arange(len(names))]
        for part, matching in zip(self.parts[1:], self.matching, strict=True):
            ids, names = match_classes(names, part.class_names, matching)
            self.class_ids.append(torch.tensor(ids))
        train, test = ([getattr(part, f"{split}_labels") for part in self.parts] for split in ("train", "test"))
        #: For each split the number of its samples before each part.
        self.offsets = {
            split: [0, *accumulate(map(len, labels))] for split, labels in (("train", train), ("test", test))
        }
        self._describe(self._mapped(train), self._mapped(test), names)

    def _mapped(self, labels: Sequence[Tensor]) -> Tensor:
        return torch.cat([ids[own] for ids, own in zip(self.class_ids, labels, strict=True)])

    def locate(self, split: Split, index: int) -> tuple[int, int]:
        """Part and position in it of the sample at a position of a split."""
        offsets = self.offsets[split]
        part = bisect_right(offsets, index) - 1
        return part, index - offsets[part]

    def item(self, split: Split, index: int) -> Any:
        """The part's item, with the label that its class has here."""
        part, position = self.locate(split, index)
        item = self.parts[part].item(split, position)
        return item if part == 0 else relabelled(item, self.class_ids[part])

    def train_transform(self) -> Callable[[Any], Any] | None:
        """The parts' own."""
        return self._by_part([part.train_transform() for part in self.parts])

    def eval_transform(self) -> Callable[[Any], Any] | None:
        """The parts' own."""
        return self._by_part([part.eval_transform() for part in self.parts])

    def _by_part(self, transforms: Sequence[Callable[[Any], Any] | None]) -> Callable[[Any], Any] | None:
        return None if all(transform is None for transform in transforms) else ByPart(self, transforms)


def relabelled(item: Any, ids: Tensor) -> Any:
    """The item with ``ids[label]`` for its label, of the same type."""
    return replace_label(item, lambda label: _renumbered(label, ids))


def _renumbered(label: Any, ids: Tensor) -> Any:
    number = ids[int(label)]
    return number.to(label) if isinstance(label, Tensor) else int(number)
