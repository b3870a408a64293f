"""Keeps protected slices of trainable parameters bit-for-bit as they are, whatever the optimiser does."""

from __future__ import annotations

import torch
from torch import Tensor


class SliceGuard:
    """Copies protected rows back after every optimiser step.

    A row with zero gradient still moves under momentum, Adam's stale moments and decoupled weight decay; copying back
    is exact for all of them. The cost does not depend on the number of past tasks.

    Args:
        parameter: ``(R, ...)`` parameter that is only partly trained now.
        rows: ``(P,)`` indices of the rows that must not move.
    """

    def __init__(self, parameter: Tensor, rows: Tensor) -> None:
        self.parameter = parameter
        self.rows = rows.to(parameter.device)
        self.saved = parameter.detach()[self.rows]  # indexing copies

    @torch.no_grad()
    def restore(self) -> None:
        """Put the protected rows back."""
        self.parameter.index_copy_(0, self.rows, self.saved)


class ElementGuard:
    """As :class:`SliceGuard`, for single elements.

    Args:
        parameter: Partly trained now.
        elements: Bool mask of its shape; ``True`` must not move.
    """

    def __init__(self, parameter: Tensor, elements: Tensor) -> None:
        self.parameter, self.elements = parameter, elements.to(parameter.device)
        self.saved = parameter.detach().clone()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the protected elements back."""
        self.parameter.copy_(torch.where(self.elements, self.saved, self.parameter))
