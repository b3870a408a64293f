"""Batches as people have them: every part of a sample tells which sample it is of."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

CLASSES, PER_CLASS, WIDTH = 6, 4, 5
Pair = namedtuple("Pair", ["image", "label"])
Other = namedtuple("Other", ["species", "photo"])


def image(i: int, view: int = 0) -> Tensor:
    """``(1, 1, 5)`` values that only sample ``i`` has."""
    return torch.full((1, 1, WIDTH), float(i + 1)) + torch.arange(WIDTH) % (i + 2) + 100.0 * view


def label(i: int) -> int:
    return i // PER_CLASS


def several(i: int) -> Tensor:
    """A multi-label target: the sample's number in binary."""
    return torch.tensor([float(i >> bit & 1) for bit in range(CLASSES)])


class Kind(NamedTuple):
    """One way to write a batch.

    Attributes:
        item: Sample ``i``.
        keys: What the user names, if anything.
        image: The part of a batch that is the image of which ``image(i)`` is a row; ``None`` for token ids.
        labelled: The targets are class ids.
    """

    item: Callable[[int], Any]
    keys: Any = None
    image: Callable[[Any], Any] | None = None
    labelled: bool = True


def tokens(i: int) -> dict[str, Any]:
    return {"input_ids": torch.full((3,), i), "attention_mask": torch.tensor([1, 1, i % 2]), "labels": label(i)}


KINDS = {
    "pair": Kind(lambda i: (image(i), label(i)), None, lambda b: b[0]),
    "input_ids": Kind(tokens),
    "pixel_values": Kind(lambda i: {"pixel_values": image(i), "labels": label(i)}, None, lambda b: b["pixel_values"]),
    "own names": Kind(lambda i: {"photo": image(i), "species": label(i)}, ("photo", "species"), lambda b: b["photo"]),
    "several named inputs": Kind(
        lambda i: {"ids": torch.full((3,), i), "mask": torch.tensor([1, 1, i % 2]), "class": label(i)},
        (("ids", "mask"), "class"),
    ),
    "named tuple": Kind(lambda i: Pair(image(i), label(i)), None, lambda b: b.image),
    "named tuple in another order": Kind(lambda i: Other(label(i), image(i)), ("photo", "species"), lambda b: b.photo),
    "index first": Kind(lambda i: (i, image(i), label(i)), None, lambda b: b[1]),
    "by position": Kind(lambda i: (i, "name", label(i), image(i)), (3, 2), lambda b: b[3]),
    "two views": Kind(lambda i: (image(i), image(i, 1), label(i)), None, lambda b: b[0]),
    "a list of views": Kind(lambda i: ([image(i), image(i, 1)], label(i)), ((0,), 1), lambda b: b[0][0], True),
    "several labels": Kind(lambda i: (image(i), several(i)), None, lambda b: b[0], False),
    "regression": Kind(lambda i: (image(i), 0.5 * i), None, lambda b: b[0], False),
    "segmentation": Kind(lambda i: (image(i), torch.full((1, WIDTH), i)), None, lambda b: b[0], False),
    "boxes": Kind(
        lambda i: {"image": image(i), "target": {"boxes": torch.full((2, 4), float(i)), "ids": torch.full((2,), i)}},
        None,
        lambda b: b["image"],
        False,
    ),
}


class Samples(Dataset):
    """24 samples of 6 classes; ``targets`` lays out the stream, whatever the items hold."""

    def __init__(self, kind: Kind) -> None:
        self.kind, self.targets = kind, [label(i) for i in range(CLASSES * PER_CLASS)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Any:
        return self.kind.item(i)
