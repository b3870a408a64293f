"""Reads inputs and targets from whatever a batch is: tuple, list or dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
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
from lightning_cl.nn.replay import join, padded_alike

__all__ = [
    "INPUT_KEYS",
    "TARGET_KEYS",
    "TEXT_KEYS",
    "Inputs",
    "call_with",
    "joined_inputs",
    "takes_names",
    "unpack",
    "unpack_for",
]


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


def joined_inputs(first: Any, second: Any) -> Any:
    """The rows of the second behind those of the first, both as :func:`unpack` gives inputs."""
    if isinstance(first, Inputs) and isinstance(second, Inputs):
        return Inputs(join(*padded_alike(first.parts, second.parts)))
    return join(*padded_alike(first, second))


def call_with(forward: Callable[..., Any], inputs: Any) -> Any:
    """What ``forward`` answers to the inputs of a batch: several are named arguments, or stand in their order."""
    if not isinstance(inputs, Inputs):
        return forward(inputs)
    named = {place: part for place, part in inputs.parts.items() if isinstance(place, str)}
    return forward(*(part for place, part in inputs.parts.items() if not isinstance(place, str)), **named)


def unpack_for(module: Any, batch: Any) -> tuple[Any, Tensor]:
    """Inputs and targets of a batch, the inputs as the ``forward`` of a continual module takes them.

    They are :class:`Inputs`, also if there is only one, where ``forward`` takes no input by its position, as in
    ``def forward(self, **inputs)``.
    """
    return unpack(batch, module.continual.batch_keys, module.continual.takes_names)


def takes_names(forward: Callable[..., Any]) -> bool:
    """Whether a function takes its inputs by their names only."""
    kinds = [parameter.kind for parameter in signature(forward).parameters.values()]
    return all(kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD) for kind in kinds)


def unpack(batch: Any, keys: BatchKeys | None = None, named: bool = False) -> tuple[Any, Tensor]:
    """Inputs and integer targets of a batch.

    Args:
        batch: ``(inputs, targets, ...)`` as tuple or list, ``(index, inputs, targets)``, two views and the targets, or
            a mapping or named tuple with one of the usual names.
        keys: Places of inputs and targets, if the user named them (``ContinualDataModule(batch_keys=...)``).
        named: A single input keeps its name, if it has one.

    Returns:
        The inputs, :class:`Inputs` where there are several (token ids with their mask); and the targets.

    Raises:
        ValueError: If there is no target; the message says what was found.
    """
    places, target = find_places(batch, keys)
    if places and target is not None:
        parts = {place: part_at(batch, place) for place in places}
        several = len(parts) > 1 or (named and isinstance(places[0], str))
        return (Inputs(parts) if several else parts[places[0]]), part_at(batch, target)
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
