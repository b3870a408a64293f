"""A matrix memory that learns while it reads: an objective of its own, and a gate that retains what it held (Miras)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What the memory minimises at each token; ``"kl"`` is the squared error with a retention gate on the simplex, ``"lq"``
#: the error of ``"lp"`` with a gate by another norm.
Kind = Literal["l2", "lp", "huber", "kl", "lq"]


def held(memory: Tensor, kind: Kind, power: float = 4.0) -> Tensor:
    """``(..., V, K)`` the matrix by which a memory answers: the memory, or ``A / ||A||_q^(q - 2)`` of it (``"lq"``).

    Args:
        memory: ``(..., V, K)``; all 0 stays all 0.
        kind: The objective.
        power: ``q``, at least 2, of ``"lq"``; 2 leaves the memory as it is.
    """
    if kind != "lq":
        return memory
    norm = torch.linalg.vector_norm(memory, power, dim=(-2, -1), keepdim=True)
    return memory / torch.where(norm > 0, norm, 1.0) ** (power - 2)


def memory_step(
    memory: Tensor,
    key: Tensor,
    value: Tensor,
    retain: Tensor | float,
    rate: Tensor | float,
    kind: Kind = "l2",
    bound: float = 3.0,
    power: float = 4.0,
) -> Tensor:
    """One step of a memory: ``alpha W - eta grad l(W; k, v)``, a gradient step pulled towards what was held.

    With ``e = W k - v`` the gradient is ``e k^T`` (``"l2"``: the delta rule with decay), ``p sign(e) |e|^(p - 1) k^T``
    (``"lp"``: outliers weigh more or less), or that of Huber's function, ``e`` clipped to ``delta`` (``"huber"``). With
    ``"kl"`` the rows of the memory are distributions, and the step is ``softmax(alpha log W - eta e k^T)``: retention
    by the Kullback-Leibler divergence. With ``"lq"`` the memory is the sum ``A`` of decayed gradients of ``"lp"``, and
    the error is that of the matrix which is :func:`held`: Moneta, with p = 3 and q = 4 in the paper. In the style of
    the variants of Miras (arXiv:2504.13173); the paper's memories are networks of two layers.

    Args:
        memory: ``(..., V, K)`` ``W``; for ``"kl"`` positive, with rows of sum 1.
        key: ``(..., K)`` ``k``.
        value: ``(..., V)`` ``v``.
        retain: ``alpha`` in [0, 1], one for all or ``(..., 1, 1)``.
        rate: ``eta``, at least 0, of the same form.
        kind: The objective.
        bound: ``p``, above 1, of ``"lp"`` and ``"lq"``; ``delta``, above 0, of ``"huber"``.
        power: See :func:`held`.

    Raises:
        ValueError: If ``kind`` is unknown, or ``power`` below 2.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"`kind` is {kind!r}; give one of {', '.join(map(repr, get_args(Kind)))}.")
    if power < 2:
        raise ValueError(f"`power` is {power}; give a norm of at least 2.")
    error = (held(memory, kind, power) @ key[..., None])[..., 0] - value
    if kind in ("lp", "lq"):
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
    behind a sigmoid. At the start the memory is 0, or uniform with ``"kl"``, or with ``"lq"``, where a small memory
    answers with large values, a multiple of the identity whose ``q``-norm is 1. Nothing is carried from one call to the
    next but what the caller hands on.

    Args:
        width: Of the tokens, ``D``.
        size: Of keys and values, ``K``.
        kind: The objective; see :func:`memory_step`.
        bound: ``p`` or ``delta``.
        power: ``q`` of ``"lq"``.
    """

    def __init__(self, width: int, size: int, kind: Kind = "l2", bound: float = 3.0, power: float = 4.0) -> None:
        super().__init__()
        self.size, self.kind, self.bound, self.power = size, kind, bound, power
        self.into, self.gates, self.out = nn.Linear(width, 3 * size), nn.Linear(width, 2), nn.Linear(size, width)

    def start(self, batch: int, like: Tensor) -> Tensor:
        """``(B, K, K)`` a memory that holds nothing."""
        if self.kind == "lq":
            first = self.size ** (-1 / self.power) * torch.eye(self.size, dtype=like.dtype, device=like.device)
            memory: Tensor = first.expand(batch, -1, -1)
            return memory
        level = 1 / self.size if self.kind == "kl" else 0.0
        return like.new_full((batch, self.size, self.size), level)

    def forward(self, tokens: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, L, D)`` tokens to ``(B, L, D)`` outputs, each read after its token was written, and the last memory."""
        memory = self.start(len(tokens), tokens) if memory is None else memory
        keys, values, queries = self.into(tokens).chunk(3, -1)
        keys, gates, read = F.normalize(keys, dim=-1), self.gates(tokens).sigmoid(), []
        for at in range(tokens.shape[1]):
            retain, rate = gates[:, at, :, None, None].unbind(1)
            memory = memory_step(memory, keys[:, at], values[:, at], retain, rate, self.kind, self.bound, self.power)
            read.append((held(memory, self.kind, self.power) @ queries[:, at, :, None])[..., 0])
        return self.out(torch.stack(read, 1)), memory
