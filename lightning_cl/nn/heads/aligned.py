"""A second set of weights for a head, aligned with all classes, while the head itself stays as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_cl.nn.heads.alignment import align_head
from lightning_cl.nn.heads.gaussians import Gaussians
from lightning_cl.nn.weights import Snapshot, trained


class AlignedHead(nn.Module):
    """What :func:`align_head` makes of a head; rows of the head that is trained are left alone.

    Args:
        head: Its parameters that need a gradient are copied.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.weights = Snapshot(trained(head))

    def align(
        self, head: nn.Module, kept: Sequence[int], gaussians: Gaussians, generator: torch.Generator, **options: Any
    ) -> None:
        """Align the head's weights of today, those of some classes as they were aligned last.

        Args:
            head: The head that was copied.
            kept: Classes, none before the first alignment.
            gaussians: Of the classes that compete.
            generator: On the CPU.
            options: Of :func:`align_head`.
        """
        weights = trained(head)
        own, rows = {name: p.detach().clone() for name, p in weights.items()}, list(kept)
        try:
            if self.weights.taken and rows:
                _copy(weights, dict(self.weights.items()), rows)
            align_head(head, gaussians, generator, **options)
            self.weights.take(weights)
        finally:
            _copy(weights, own)

    def forward(self, head: nn.Module, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits of the aligned weights, without the head's hooks."""
        weights = {f"head.{name}": value for name, value in self.weights.items()}
        logits: Tensor = functional_call(_WithoutHooks(head), weights, (features,))
        return logits


class _WithoutHooks(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Any:
        return self.head.forward(features)


@torch.no_grad()
def _copy(weights: dict[str, nn.Parameter], values: dict[str, Tensor], rows: list[int] | None = None) -> None:
    for name, value in values.items():
        if rows is None:
            weights[name].copy_(value)
        elif value.ndim:  # a scale has no rows
            weights[name][rows] = value[rows]
