"""Reads inputs and targets from whatever a batch is: tuple, list or dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_cl.datamodules.batch_form import (
    INPUT_KEYS,
    TARGET_KEYS,
    TEXT_KEYS,
    BatchKeys,
    Place,
    find_places,
    part_at,
)

__all__ = ["INPUT_KEYS", "TARGET_KEYS", "TEXT_KEYS", "Inputs", "call_with", "unpack"]


@dataclass(frozen=True)
class Inputs:
    """Several inputs of a model, each of which has a row for every sample.

    Attributes:
        parts: By the name of the argument, or by its position.
    """

    parts: dict[Place, Any]

    def __getitem__(self, rows: Any) -> Inputs:
        """The given rows of every part."""
        return Inputs({place: part[rows] for place, part in self.parts.items()})

    def numel(self) -> int:
        """Number of values in all parts."""
        return sum(int(part.numel()) for part in self.parts.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(int(part.nbytes) for part in self.parts.values())


def call_with(forward: Callable[..., Any], inputs: Any) -> Any:
    """What ``forward`` answers to the inputs of a batch: several are named arguments, or stand in their order."""
    if not isinstance(inputs, Inputs):
        return forward(inputs)
    named = {place: part for place, part in inputs.parts.items() if isinstance(place, str)}
    return forward(*(part for place, part in inputs.parts.items() if not isinstance(place, str)), **named)


def unpack(batch: Any, keys: BatchKeys | None = None) -> tuple[Any, Tensor]:
    """Inputs and integer targets of a batch.

    Args:
        batch: ``(inputs, targets, ...)`` as tuple or list, ``(index, inputs, targets)``, two views and the targets, or
            a mapping or named tuple with one of the usual names.
        keys: Places of inputs and targets, if the user named them (``ContinualDataModule(batch_keys=...)``).

    Returns:
        The inputs, :class:`Inputs` where there are several (token ids with their mask); and the targets.

    Raises:
        ValueError: If there is no target; the message says what was found.
    """
    places, target = find_places(batch, keys)
    if places and target is not None:
        parts = {place: part_at(batch, place) for place in places}
        return (Inputs(parts) if len(parts) > 1 else parts[places[0]]), part_at(batch, target)
    if isinstance(batch, Mapping):
        missing, usual = ("targets", TARGET_KEYS) if places else ("inputs", (*INPUT_KEYS, *TEXT_KEYS))
        raise ValueError(
            f"the batch has the keys {sorted(map(str, batch))}, but no {missing} among them "
            f"(looked for {', '.join(usual)}); rename the key, e.g. with `ContinualDataModule(batch_keys=...)`, or "
            "name inputs and targets there as they are."
        )
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise ValueError(
        f"the batch is a {type(batch).__name__}{size} without a target; give (inputs, targets) or a dictionary with "
        f"one of the keys {', '.join(TARGET_KEYS)}."
    )
