"""The precision in which sigmoids, softmaxes and cosines are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """Convert to at least 32 bits; what has as many stays as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
