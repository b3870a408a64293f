"""Adapters that are mixed by a router: one column of it for each, on the mean of an image's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_cl.nn.adapters.banks import Adapter, Slots, matmul


class AdapterMixture(Adapter):
    """``y + sum_k w_k A_k(x)`` with ``w = softmax_k(r_k mean(x) + s_k)`` over the slots of a path (SEMA, 2403.18886).

    With one slot its weight is 1. Batches are ``(B, tokens, D)``.

    Args:
        slots: Most adapters that there will be.
        width: Size of ``x`` and ``y``.
        rank: Hidden size of an adapter.

    Attributes:
        keeps_mean: Whether ``mean`` is kept; a graph that is compiled or exported keeps nothing.
        mean: ``(B, D)`` the last batch's mean tokens, what the router read; no state.
    """

    router: Tensor
    router_bias: Tensor

    def __init__(self, slots: int, width: int, rank: int) -> None:
        super().__init__(slots, width, rank, scale=1.0, dropout=0.0)
        adapters = self.growing
        self._stacked(router=(1, width), router_bias=(1,))
        self.growing = (*adapters, *self.growing)
        for part in self.router:
            nn.init.kaiming_uniform_(part, a=5**0.5)
        self.keeps_mean, self.mean = False, torch.empty(0)

    def adapted(self, x: Tensor, y: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(P * B, tokens, D)`` twice to the same shape."""
        mean = x.mean(dim=1)
        if self.keeps_mean:
            self.mean = mean.detach()
        weights = matmul(mean, self.stack("router", paths), self.stack("router_bias", paths)).softmax(dim=-1)
        hidden = matmul(x, self.stack("down", paths), self.stack("down_bias", paths)).relu()
        hidden = (hidden.unflatten(-1, (weights.shape[-1], -1)) * weights[:, None, :, None]).flatten(-2)
        bias = matmul(weights, self.stack("up_bias", paths).mT)
        return y + matmul(hidden, self.stack("up", paths).mT) + bias[:, None]
