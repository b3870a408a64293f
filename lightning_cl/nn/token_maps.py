"""Read the tokens of a transformer as a map of its patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from torch import Tensor

#: Class and register tokens in front of the patches.
MOST_PREFIX_TOKENS = 8


def token_maps(output: Tensor, who: str = "pooled distillation", argument: str = "stages=[...]") -> Tensor:
    """What a stage gave, as a map.

    Args:
        output: ``(B, C, H, W)``, which stays as it is, or ``(B, N, C)`` tokens, of which the last are the patches of a
            square.
        who: What needs the map, for the error.
        argument: With which other layers are named, for the error.

    Returns:
        ``(B, C, H, W)``; class and register tokens are left out.

    Raises:
        ValueError: If it is neither.
    """
    if output.ndim == 4:
        return output
    side = isqrt(output.shape[1]) if output.ndim == 3 else 0
    if side == 0 or output.shape[1] - side**2 > MOST_PREFIX_TOKENS:
        raise ValueError(
            f"a stage gives a tensor of the shape {tuple(output.shape)}, but {who} needs maps "
            f"`(B, C, H, W)`, or tokens `(B, N, C)` of a square of patches; name other layers with `{argument}`."
        )
    maps: Tensor = output[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
    return maps


def stage_maps(outputs: Mapping[str, Any], stages: Sequence[str]) -> list[Tensor]:
    """``(B, C, H, W)`` what each stage gave; of several tensors the first."""
    given = [outputs[name] for name in stages]
    return [token_maps(output[0] if isinstance(output, tuple) else output) for output in given]
