"""A list with one entry for each sample of a batch, where the samples do not stack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, device


class SampleList(list[Any]):
    """A plain list that says of itself that its entries are samples (images of any size, dictionaries of boxes)."""


def owned(entries: Iterable[Any], place: device | None = None) -> SampleList:
    """Copies of samples, which no step that works in place changes.

    Args:
        entries: Tensors, or dictionaries and lists of such; ``None``: no sample.
        place: Where their tensors are put; ``None``: where each is.
    """
    return SampleList(
        apply_to_collection(entry, Tensor, lambda part: _plain(part).to(device=place, copy=True)) for entry in entries
    )


def _plain(part: Tensor) -> Tensor:
    """Without the gradient, and without the type of torchvision's images and boxes, which no checkpoint may hold."""
    return part.detach().as_subclass(Tensor)


def first_device(entries: Iterable[Any]) -> device | None:
    """Where the first tensor among samples is; ``None``: there is none."""
    found: list[Tensor] = []
    apply_to_collection(list(entries), Tensor, found.append)
    return found[0].device if found else None
