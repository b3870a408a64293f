"""CODA-Prompt (arXiv:2211.13218): prefixes as attention-weighted sums of prompt components, one slice per task."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.orthogonal import gram_schmidt_rows, orthogonality_penalty, orthonormal_rows
from lightning_cl.nn.prefix_attention import Prefix
from lightning_cl.nn.prompts import PromptProvider, Prompts


def component_weights(query: Tensor, attended_keys: Tensor, squared_attention: Tensor) -> Tensor:
    """``alpha = cos(q * A, K)`` for all components, by two GEMMs (CODA-Prompt, eq. 5; no B x M x D tensor).

    Args:
        query: ``(B, D)``.
        attended_keys: ``(..., M, D)``, ``A * K / |K|``.
        squared_attention: ``(..., M, D)``, ``A * A``.

    Returns:
        ``(..., B, M)`` in [-1, 1].
    """
    with torch.autocast(query.device.type, enabled=False):  # small, and cosines of 16-bit products would be coarse
        query = query.to(attended_keys.dtype)
        norm = (query.square() @ squared_attention.mT).clamp_min(1e-12).sqrt()
        return (query @ attended_keys.mT) / norm


class CODAPromptPool(PromptProvider):
    """Components, keys and attention vectors of all tasks for all prompted layers, stacked.

    Task ``t`` owns rows ``[t * n, (t + 1) * n)`` with ``n = pool_size // num_tasks``; rows of earlier tasks are used
    but get no gradient, rows of later tasks are not touched. There is no task identity at test time.

    Args:
        num_tasks: Tasks of the stream.
        width: Width ``D`` of the ViT.
        pool_size: Components per layer, ``M``.
        prompt_length: Rows per component, ``L``: half of them keys, half values.
        layers: Zero-based layers that get a prefix.
        ortho_weight: Weight of the orthogonality penalty on keys, attention vectors and components. The paper's 0.1
            was in effect 1e-7; the authors recommend 0, or about 1e-6.
        init: ``"qr"``: new rows exactly orthonormal; ``"gram_schmidt"``: the released recipe.

    Raises:
        ValueError: If ``prompt_length`` is odd, or there are more tasks than components.
    """

    growing = ("keys", "attention", "components")

    def __init__(
        self,
        num_tasks: int,
        width: int,
        pool_size: int = 100,
        prompt_length: int = 8,
        layers: Sequence[int] = (0, 1, 2, 3, 4),
        ortho_weight: float = 0.0,
        init: Literal["qr", "gram_schmidt"] = "qr",
    ) -> None:
        super().__init__()
        if prompt_length < 2 or prompt_length % 2:
            raise ValueError(
                f"`prompt_length` is {prompt_length}, but half of the rows are keys and half values; give an even "
                "number of at least 2."
            )
        if num_tasks > pool_size:
            raise ValueError(
                f"the stream has {num_tasks} tasks but the pool only {pool_size} components; set `pool_size` to at "
                f"least {num_tasks}."
            )
        if pool_size % num_tasks:
            warnings.warn(
                f"`pool_size={pool_size}` over {num_tasks} tasks leaves {pool_size % num_tasks} components unused "
                f"({pool_size // num_tasks} per task).",
                stacklevel=2,
            )
        self.layers = tuple(layers)
        self.per_task = pool_size // num_tasks
        self.num_tasks, self.ortho_weight, self.init = num_tasks, ortho_weight, init
        # Component first, so that a task's slice is rows of dimension 0 for the guard.
        self.keys = nn.Parameter(torch.zeros(pool_size, len(self.layers), width))
        self.attention = nn.Parameter(torch.zeros(pool_size, len(self.layers), width))
        self.components = nn.Parameter(torch.zeros(pool_size, len(self.layers), prompt_length, width))

    @property
    def current(self) -> slice:
        """Rows of the current task."""
        return slice(self.task * self.per_task, (self.task + 1) * self.per_task)

    @property
    def old(self) -> slice:
        """Rows of all earlier tasks."""
        return slice(0, self.current.start)

    def start_task(self, task: int) -> None:
        """Draw the task's rows orthonormal to one another and to all earlier rows, in place."""
        if task >= self.num_tasks:
            raise ValueError(f"the pool was built for {self.num_tasks} tasks, but task {task} starts.")
        super().start_task(task)
        draw = orthonormal_rows if self.init == "qr" else gram_schmidt_rows
        with torch.no_grad():
            for parameter in (self.keys, self.attention, self.components):
                for layer in range(len(self.layers)):
                    new = parameter[self.current, layer]
                    new.copy_(draw(parameter[self.old, layer].flatten(1), self.per_task).view_as(new))

    def protected_rows(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """All rows but those of the current task."""
        if self.task < 0:
            return
        rows = torch.arange(len(self.keys))
        frozen = rows[(rows < self.current.start) | (rows >= self.current.stop)]
        for parameter in (self.keys, self.attention, self.components):
            yield parameter, frozen

    def forward(self, query: Tensor | None) -> Prompts:
        """``(B, D)`` queries to one prefix per layer; components of future tasks play no part."""
        if self.task < 0:
            return Prompts()
        assert query is not None
        rows = self._mix(query, self.current)
        if self.task > 0:
            with torch.no_grad():
                frozen = self._mix(query, self.old)
            rows = rows + frozen
        half = rows.shape[2] // 2
        prefixes = {layer: Prefix(rows[i, :, :half], rows[i, :, half:]) for i, layer in enumerate(self.layers)}
        return Prompts(prefixes, loss=self._penalty() if self.training and self.ortho_weight else None)

    def _mix(self, query: Tensor, rows: slice) -> Tensor:
        """Sums of some components, weighted for each query, as ``(layers, B, L, D)``."""
        keys, attention, components = (p[rows].transpose(0, 1) for p in (self.keys, self.attention, self.components))
        weights = component_weights(query, attention * F.normalize(keys, dim=-1), attention.square())
        return (weights @ components.flatten(2)).view(*weights.shape[:2], *components.shape[2:])

    def _penalty(self) -> Tensor:
        total = torch.zeros((), dtype=self.keys.dtype, device=self.keys.device)
        for parameter in (self.keys, self.attention, self.components):
            flat = parameter.flatten(2).transpose(0, 1)
            total = total + orthogonality_penalty(flat[:, self.current], flat[:, self.old]).sum()
        return self.ortho_weight * total

    def extra_repr(self) -> str:
        """Sizes."""
        pool, _, length, width = self.components.shape
        return f"{pool} components of {length} x {width}, {self.per_task} per task, layers={list(self.layers)}"
