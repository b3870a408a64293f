"""A matrix memory that learns while it reads: an objective of its own, and a gate that retains what it held (Miras)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What the memory minimises at each token; ``"kl"`` is the squared error with a retention gate on the simplex.
Kind = Literal["l2", "lp", "huber", "kl"]


def memory_step(
    memory: Tensor,
    key: Tensor,
    value: Tensor,
    retain: Tensor | float,
    rate: Tensor | float,
    kind: Kind = "l2",
    bound: float = 3.0,
) -> Tensor:
    """One step of a memory: ``alpha W - eta grad l(W; k, v)``, a gradient step pulled towards what was held.

    With ``e = W k - v`` the gradient is ``e k^T`` (``"l2"``: the delta rule with decay), ``p sign(e) |e|^(p - 1) k^T``
    (``"lp"``: outliers weigh more or less), or that of Huber's function, ``e`` clipped to ``delta`` (``"huber"``). With
    ``"kl"`` the rows of the memory are distributions, and the step is ``softmax(alpha log W - eta e k^T)``: retention
    by the Kullback-Leibler divergence. In the style of the variants of Miras (arXiv:2504.13173).

    Args:
        memory: ``(..., V, K)`` ``W``; for ``"kl"`` positive, with rows of sum 1.
        key: ``(..., K)`` ``k``.
        value: ``(..., V)`` ``v``.
        retain: ``alpha`` in [0, 1], one for all or ``(..., 1, 1)``.
        rate: ``eta``, at least 0, of the same form.
        kind: The objective.
        bound: ``p``, above 1, of ``"lp"``; ``delta``, above 0, of ``"huber"``.

    Raises:
        ValueError: If ``kind`` is unknown.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"`kind` is {kind!r}; give one of {', '.join(map(repr, get_args(Kind)))}.")
    error = (memory @ key[..., None])[..., 0] - value
    if kind == "lp":
        tiny = torch.finfo(error.dtype).tiny  # the slope at 0 is infinite for p below 2
        error = bound * error.sign() * error.abs().clamp_min(tiny) ** (bound - 1)
    if kind == "huber":
        error = error.clamp(-bound, bound)
    gradient = error[..., :, None] * key[..., None, :]
    if kind == "kl":
        return (retain * memory.clamp_min(torch.finfo(memory.dtype).tiny).log() - rate * gradient).softmax(-1)
    return retain * memory - rate * gradient


class OnlineMemory(nn.Module):
    """A recurrent layer whose state is a matrix that each token trains by one :func:`memory_step`, then reads.

    Keys (of unit length), values and queries are linear in the token, and so are its two gates, ``alpha`` and ``eta``,
    behind a sigmoid. At the start the memory is 0, or uniform with ``"kl"``. Nothing is carried from one call to the
    next but what the caller hands on.

    Args:
        width: Of the tokens, ``D``.
        size: Of keys and values, ``K``.
        kind: The objective; see :func:`memory_step`.
        bound: ``p`` or ``delta``.
    """

    def __init__(self, width: int, size: int, kind: Kind = "l2", bound: float = 3.0) -> None:
        super().__init__()
        self.size, self.kind, self.bound = size, kind, bound
        self.into, self.gates, self.out = nn.Linear(width, 3 * size), nn.Linear(width, 2), nn.Linear(size, width)

    def start(self, batch: int, like: Tensor) -> Tensor:
        """``(B, K, K)`` a memory that holds nothing."""
        level = 1 / self.size if self.kind == "kl" else 0.0
        return like.new_full((batch, self.size, self.size), level)

    def forward(self, tokens: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, L, D)`` tokens to ``(B, L, D)`` outputs, each read after its token was written, and the last memory."""
        memory = self.start(len(tokens), tokens) if memory is None else memory
        keys, values, queries = self.into(tokens).chunk(3, -1)
        keys, gates, read = F.normalize(keys, dim=-1), self.gates(tokens).sigmoid(), []
        for at in range(tokens.shape[1]):
            retain, rate = gates[:, at, :, None, None].unbind(1)
            memory = memory_step(memory, keys[:, at], values[:, at], retain, rate, self.kind, self.bound)
            read.append((memory @ queries[:, at, :, None])[..., 0])
        return self.out(torch.stack(read, 1)), memory
