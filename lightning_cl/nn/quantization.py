"""Values in 8 bits, each row between its own least and largest one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: The largest code.
LEVELS = 255


class Quantized(NamedTuple):
    """Rows of values in 8 bits.

    Attributes:
        codes: ``(N, ...)`` uint8.
        low: ``(N,)`` the least value of each row.
        step: ``(N,)`` between neighbouring codes of a row; 0 where all its values are equal.
    """

    codes: Tensor
    low: Tensor
    step: Tensor


def quantize(values: Tensor) -> Quantized:
    """``(N, ...)`` values as the nearest of 256 even levels of their row; off by at most ``(max - min) / 510``."""
    rows = values.flatten(1).float()
    low, high = rows.aminmax(dim=1)
    step = (high - low) / LEVELS
    codes = ((rows - low[:, None]) / step.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return Quantized(codes.to(torch.uint8).view(values.shape), low, step)


def dequantize(packed: Quantized) -> Tensor:
    """``(N, ...)`` float32 values of the codes."""
    rows = packed.low[:, None] + packed.step[:, None] * packed.codes.flatten(1)
    return rows.view(packed.codes.shape)
