"""Score networks that were never trained, by how differently their units answer to the samples of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def naswot(active: Tensor) -> float:
    """``log |K|`` of ``K_ij``, the number of units that samples ``i`` and ``j`` agree in (NASWOT, arXiv:2006.04647).

    The higher, the better the samples are told apart; -inf if two of them have the same code.

    Args:
        active: ``(N, U)`` bool: whether a unit answers to a sample.
    """
    codes = active.double()
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T
    sign, value = torch.linalg.slogdet(kernel)
    return float(value) if float(sign) > 0 else float("-inf")
