"""Tell whether tensors were written to, without looking at their values, and remember what was made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

Value = TypeVar("Value")


def version(tensor: Tensor) -> int:
    """How often a tensor was written to in place; 0 for one that was made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def written(tensor: Tensor) -> tuple[object, ...]:
    """Something that changes when a tensor is written to, or another one takes its place."""
    return _Same(tensor), version(tensor), tensor.device


class _Same:
    """Equal for the same tensor alone; held, so that no other one takes its place in memory."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.tensor is self.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


def parameter_versions(*modules: nn.Module, but: tuple[str, ...] = ()) -> tuple[object, ...]:
    """Something that changes when a parameter of ``modules`` is written to, moved or converted.

    Every write in place (an optimiser's step, ``load_state_dict``) counts a tensor's version up; no value is read, so
    nothing waits for the device. Writes through ``.data`` are not seen.

    Args:
        modules: Whose parameters.
        but: Names of children and parameters that are left out.
    """
    named = ((name.partition(".")[0], p) for module in modules for name, p in module.named_parameters())
    found = [p for first, p in named if first not in but]
    written = sum(version(p) for p in found)
    return written, frozenset((p.dtype, p.device) for p in found)


class Remembered(Generic[Value]):
    """A value, and what it was made of; a copy remembers nothing, since its tensors count their writes anew."""

    def __init__(self) -> None:
        self._known: tuple[object, Value] | None = None

    def get(self, made_of: object, make: Callable[[], Value]) -> Value:
        """The value, made anew where ``made_of`` is another than it was (see :func:`written`)."""
        if self._known is None or self._known[0] != made_of:
            self._known = made_of, make()
        return self._known[1]

    def __getstate__(self) -> dict[str, Any]:
        """Nothing."""
        return {"_known": None}
