"""Tell whether weights were written to, without looking at their values."""

from __future__ import annotations

from torch import Tensor, nn


def version(tensor: Tensor) -> int:
    """How often a tensor was written to in place; 0 for one that was made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


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
