"""Checks that the labels in a batch are those by which the stream was laid out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.batch_form import BatchKeys, find_places, part_at

_SHOWN = 5


def class_ids_in(batch: Any, keys: BatchKeys | None, count: int) -> Tensor | None:
    """The ``(count,)`` class ids among a batch's parts; ``None`` where its targets are something else.

    Args:
        batch: As a loader gives it, or as a module gets it.
        keys: Places of inputs and targets, if the user named them.
        count: Number of samples.
    """
    _, place = find_places(batch, keys)
    targets = None if place is None else part_at(batch, place)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.dtype == torch.bool:
        return None  # soft, multi-label or regression targets
    return targets.flatten() if targets.numel() == count else None  # else a class for every pixel


def check_labels(given: Tensor, expected: Tensor, index: Tensor, moved: bool = False) -> None:
    """Compare the class ids of a batch with those of the source.

    Args:
        given: ``(B,)`` integers of the batch.
        expected: ``(B,)`` class ids of the same samples by the source's labels.
        index: Positions in the training split of the first of these samples; those behind them were remembered.
        moved: The rows may stand in another order, so only how often each id comes is compared.

    Raises:
        ValueError: If they differ; the message shows both.
    """
    given, expected = given.cpu().long(), expected.cpu().long()
    if torch.equal(given, expected) or (moved and torch.equal(given.sort().values, expected.sort().values)):
        return
    first = int((given != expected)[: len(index)].int().argmax())
    raise ValueError(
        f"the labels of a batch are other class ids than the stream's: sample {int(index[first])} of the training "
        f"split has {int(given[first])} in the batch and {int(expected[first])} in the source's labels (the batch "
        f"begins {given[:_SHOWN].tolist()}, by the source {expected[:_SHOWN].tolist()}); a target transform, labels "
        "from 1 or a subset that renumbers must show in both, so give the labels that the items have as "
        "`train_targets=` and `test_targets=`, or let the items have those of the source, and name the labels with "
        "`batch_keys` if this part of the batch is something else."
    )
