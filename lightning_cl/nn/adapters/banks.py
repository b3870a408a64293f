"""Adapters of all tasks or experts in stacked tensors: one slice of each is one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Slots whose adapters are added up.
Slots = tuple[int, ...]


class Bank(nn.Module):
    """``T`` adapters at one place; every parameter is ``(T, ...)``, so the graph and the optimiser never change.

    What a slot learned still moves under momentum and weight decay: see :meth:`protected`.

    Args:
        slots: Tasks or experts, ``T``.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.growing: tuple[str, ...] = ()
        #: Slots that get a gradient where several are added up; ``None``: all.
        self.learning: tuple[int, ...] | None = None

    def adapted(self, x: Tensor, y: Tensor, paths: Sequence[Slots]) -> Tensor:
        """The output ``y`` with the adapters' part.

        Args:
            x: ``(P * B, ..., D)`` what the adapter reads, path after path.
            y: ``(P * B, ..., D_out)`` what the layer made.
            paths: ``P`` times the slots that answer; each the same number.
        """
        raise NotImplementedError

    def stack(self, name: str, paths: Sequence[Slots]) -> Tensor:
        """``(P, k * r, ...)`` slices ``(r, ...)`` of a parameter, those of a path's ``k`` slots one after the other."""
        parts = [[self.slot_of(name, i) for i in slots] for slots in paths]
        rows = [found[0] if len(found) == 1 else torch.cat(found) for found in parts]
        return rows[0][None] if len(rows) == 1 else torch.stack(rows)

    def slot_of(self, name: str, slot: int) -> Tensor:
        """One slice of a parameter, without gradient where its slot does not learn."""
        part = cast(Tensor, getattr(self, name))[slot]
        return part if self.learning is None or slot in self.learning else part.detach()

    @torch.no_grad()
    def copy_slot(self, source: int, target: int) -> None:
        """Copy a task's adapter into another one's place (MOS)."""
        for parameter in self.parameters():
            parameter[target] = parameter[source]

    def protected(self, trained: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter with the slots that must not move while those of ``trained`` learn."""
        others = torch.tensor([i for i in range(self.slots) if i not in trained], dtype=torch.long)
        return ((parameter, others) for parameter in self.parameters()) if len(others) else iter(())

    def _stacked(self, **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(self.slots, *shape)))
        self.growing = tuple(shapes)


class LoRA(Bank):
    """``y + scale * sum_slots B_i A_i x`` (arXiv:2106.09685); ``B`` starts at zero, ``A`` uniform as a linear layer.

    Args:
        slots: Tasks or experts, ``T``.
        in_features: Size of ``x``.
        out_features: Size of what is added.
        rank: Rows of ``A``, ``r``.
        scale: Of what is added.
        start: First channel of ``y`` that is added to: a fused query, key and value projection has three parts.
    """

    down: Tensor
    up: Tensor

    def __init__(
        self, slots: int, in_features: int, out_features: int, rank: int, scale: float = 1.0, start: int = 0
    ) -> None:
        super().__init__(slots)
        self.scale, self.start = scale, start
        self._stacked(down=(rank, in_features), up=(rank, out_features))
        for part in self.down:
            nn.init.kaiming_uniform_(part, a=5**0.5)

    def adapted(self, x: Tensor, y: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(P * B, ..., D)`` and ``(P * B, ..., D_out)`` to the latter's shape."""
        added = self.added(x, paths)
        if added.shape[-1] != y.shape[-1]:
            added = F.pad(added, (self.start, y.shape[-1] - self.start - added.shape[-1]))
        return y + added

    def added(self, x: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(P * B, ..., D)`` to ``(P * B, ..., out_features)``, what the slots of each path answer together."""
        hidden = self.weigh(matmul(x, self.stack("down", paths)), paths)
        return matmul(hidden, (self.scale * self.stack("up", paths)).mT)  # the smaller factor is scaled

    def delta(self, slot: int) -> Tensor:
        """``(D_out, D)`` what a slot amounts to, added to the layer's weight: ``scale * B A``."""
        return self.scale * self.up[slot].mT @ self.down[slot]

    def weigh(self, hidden: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(P * B, ..., k * r)`` components of ``x`` along the rows of ``A``; a subclass may weigh them."""
        return hidden


class RankOne(LoRA):
    """A LoRA whose components ``(a_j, b_j)`` are experts that choose themselves by ``a_j x`` (MoRAM, arXiv:2506.21035).

    With ``z = A x`` over all components of a path's slots and ``u = z / |z|``: the ``topk`` largest ``u_j`` answer with
    the weights ``softmax(u / temperature)``; in evaluation mode those with ``u_j < threshold`` do not.

    Args:
        slots: Tasks, ``T``.
        in_features: Size of ``x``.
        out_features: Size of what is added.
        rank: Components of a task.
        topk: How many answer; at least 2 are taken where there are so many.
        temperature: Above 0.
        threshold: On ``u_j``, in [-1, 1].
        start: First channel of ``y`` that is added to.
    """

    def __init__(
        self,
        slots: int,
        in_features: int,
        out_features: int,
        rank: int,
        topk: int = 16,
        temperature: float = 0.01,
        threshold: float = 0.2,
        start: int = 0,
    ) -> None:
        super().__init__(slots, in_features, out_features, rank, 1.0, start)
        self.topk, self.temperature, self.threshold = topk, temperature, threshold

    def weigh(self, hidden: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(..., R)`` components, those that do not answer at 0."""
        unit = F.normalize(hidden, dim=-1)
        best = unit.topk(min(max(self.topk, 2), unit.shape[-1]), dim=-1)
        share = (best.values / self.temperature).softmax(dim=-1)
        if not self.training:
            share = share.masked_fill(best.values < self.threshold, 0.0)  # the rest is not scaled up, as published
        return hidden * torch.zeros_like(hidden).scatter(-1, best.indices, share.to(hidden.dtype))


class Adapter(Bank):
    """``y + scale * sum_slots (U_i relu(D_i x + d_i) + u_i)`` (AdaptFormer, arXiv:2205.13535), zero at the start.

    Args:
        slots: Tasks or experts, ``T``.
        width: Size of ``x`` and ``y``.
        rank: Hidden size, ``r``.
        scale: Of what is added.
        dropout: After the ReLU, in training mode.
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def __init__(self, slots: int, width: int, rank: int, scale: float = 0.1, dropout: float = 0.1) -> None:
        super().__init__(slots)
        self.scale, self.dropout = scale, dropout
        self._stacked(down=(rank, width), down_bias=(rank,), up=(rank, width), up_bias=(1, width))
        for part in self.down:
            nn.init.kaiming_uniform_(part, a=5**0.5)

    def adapted(self, x: Tensor, y: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(P * B, ..., D)`` twice to the same shape."""
        hidden = matmul(x, self.stack("down", paths), self.stack("down_bias", paths)).relu()
        hidden = F.dropout(hidden, self.dropout, self.training)
        bias = self.stack("up_bias", paths).sum(dim=1)
        return y + self.scale * matmul(hidden, self.stack("up", paths).mT, bias)


class SSF(Bank):
    """``gamma * y + beta`` for each channel of a layer's output (SSF, arXiv:2210.08823); one slot a path.

    Args:
        slots: Tasks or experts, ``T``.
        width: Channels of ``y``.
        std: Of the normal start around 1 and 0; 0 changes nothing at first.
        channel_dim: Of ``y``; 1 behind a convolution.
    """

    gamma: Tensor
    beta: Tensor

    def __init__(self, slots: int, width: int, std: float = 0.02, channel_dim: int = -1) -> None:
        super().__init__(slots)
        self.channel_dim = channel_dim
        self._stacked(gamma=(width,), beta=(width,))
        nn.init.normal_(self.gamma, 1.0, std)
        nn.init.normal_(self.beta, 0.0, std)

    def adapted(self, x: Tensor, y: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(P * B, ...)`` to the same shape; ``x`` plays no part."""
        gamma, beta = self.stack("gamma", paths), self.stack("beta", paths)  # (P, C)
        rows: Tensor = y.movedim(self.channel_dim, -1).unflatten(0, (len(paths), -1))
        shape = (len(paths), *(1,) * (rows.ndim - 2), -1)
        out = rows * gamma.view(shape) + beta.view(shape)
        return out.flatten(0, 1).movedim(-1, self.channel_dim)


def matmul(x: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(P * B, ..., D)`` rows, path after path, times each path's ``(O, D)`` of ``(P, O, D)``; bias ``(P, O)``."""
    if len(weights) == 1:
        return F.linear(x, weights[0], None if bias is None else bias[0])
    rows = x.reshape(len(weights), -1, x.shape[-1])
    out = rows @ weights.mT
    out = out if bias is None else out + bias[:, None]
    return out.reshape(*x.shape[:-1], weights.shape[1])
