"""Keep what layers have of their own for each task: norms, whose statistics and weights differ from task to task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.weights import key_of

STATISTICS, AFFINE = ("running_mean", "running_var"), ("weight", "bias")


class TaskRows(nn.Module):
    """Copies of tensors of some layers, as they were at first (row 0) and at the end of task ``t`` (row ``t + 1``).

    Args:
        layers: By name.
        num_tasks: Tasks, ``T``.
        affine: Weight and bias, too, and not only running statistics.

    Attributes:
        growing: Buffers with a row for each task.
    """

    def __init__(self, layers: Mapping[str, Any], num_tasks: int, affine: bool = True) -> None:
        super().__init__()
        for name, layer in layers.items():
            for piece in (*STATISTICS, *AFFINE) if affine else STATISTICS:
                start = getattr(layer, piece, None)
                if start is not None:
                    rows = start.detach().expand(num_tasks + 1, *start.shape).clone()
                    self.register_buffer(key_of(f"{name}.{piece}"), rows)
        self.growing = tuple(name for name, _ in self.named_buffers())

    def of(self, name: str, task: int) -> dict[str, Tensor]:
        """The tensors of a layer at the end of a task, by attribute; -1: at first."""
        return {piece: rows[task + 1] for piece, rows in self._rows(name)}

    @torch.no_grad()
    def keep(self, layers: Mapping[str, Any], task: int) -> None:
        """Copy what the layers have now, at the end of a task."""
        for name, layer in layers.items():
            for piece, rows in self._rows(name):
                rows[task + 1] = getattr(layer, piece)

    @torch.no_grad()
    def put_back(self, layers: Mapping[str, Any], task: int = -1) -> None:
        """Let the layers have again what they had at the end of a task; -1: at first."""
        for name, layer in layers.items():
            for piece, kept in self.of(name, task).items():
                getattr(layer, piece).copy_(kept)

    def _rows(self, name: str) -> Iterator[tuple[str, Tensor]]:
        for piece in (*STATISTICS, *AFFINE):
            key = key_of(f"{name}.{piece}")
            if hasattr(self, key):
                yield piece, self.get_buffer(key)
