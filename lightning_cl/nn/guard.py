"""Keeps protected rows or elements of trainable parameters bit-for-bit as they are, whatever the optimiser does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Parameter = TypeVar("Parameter", bound=Tensor)


class Guard:
    """Copies protected rows or elements back after every optimiser step.

    What has a zero gradient still moves under momentum, Adam's stale moments and decoupled weight decay; copying back
    is exact for all of them. The cost does not depend on the number of past tasks.

    Args:
        parameter: ``(R, ...)`` parameter that is only partly trained now.
        protected: ``(P,)`` indices of the rows that must not move, or a boolean mask of the parameter's shape, true
            where it must not move.

    Raises:
        ValueError: If a mask has another shape than the parameter.
    """

    def __init__(self, parameter: Tensor, protected: Tensor) -> None:
        self.parameter = parameter
        self.protected = protected.to(parameter.device)
        self.by_element = protected.dtype == torch.bool
        if self.by_element and protected.shape != parameter.shape:
            raise ValueError(
                f"the mask has the shape {tuple(protected.shape)} and the parameter {tuple(parameter.shape)}; give a "
                "mask with an entry for each element, or the indices of rows."
            )
        kept = parameter.detach()
        self.saved = kept.clone() if self.by_element else kept[self.protected]  # indexing copies

    @torch.no_grad()
    def restore(self) -> None:
        """Put the protected values back."""
        if self.by_element:
            self.parameter.copy_(torch.where(self.protected, self.saved, self.parameter))
        else:
            self.parameter.index_copy_(0, self.protected, self.saved)


def all_rows_but(parameter: Parameter, row: int) -> tuple[Parameter, Tensor]:
    """A ``(R, ...)`` parameter and the indices of its rows without one, as :class:`Guard` takes them."""
    rows = torch.arange(len(parameter), device=parameter.device)
    return parameter, rows[rows != row]


def whole(parameters: Iterable[Parameter]) -> Iterator[tuple[Parameter, Tensor]]:
    """Parameters, each with a mask of all its elements, as :class:`Guard` takes them."""
    return ((parameter, torch.ones_like(parameter, dtype=torch.bool)) for parameter in parameters)


@torch.no_grad()
def zero_gradients(elements: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set gradients to 0, in place, where the masks of parameters are true: these elements have no part in clipping."""
    for parameter, mask in elements:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(mask, 0)


#: The name that it had first.
SliceGuard = Guard
