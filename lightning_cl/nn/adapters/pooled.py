"""A pool of low-rank updates, of which every sample has its own mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.nn.adapters.banks import LoRA, Slots


class Mixture:
    """Which slots of a pool answer for each sample of the batch that passes; all banks of the pool hold the same one.

    Attributes:
        slots: ``(B, k)`` ids; ``None``: no slot answers.
        shares: ``(B, k)`` weights.
    """

    def __init__(self) -> None:
        self.slots: Tensor | None = None
        self.shares: Tensor | None = None

    def set(self, slots: Tensor | None, shares: Tensor | None) -> None:
        """Take these for the next pass."""
        self.slots, self.shares = slots, shares


class PooledLoRA(LoRA):
    """``y_b + scale * sum_k share_bk B_k A_k x_b`` with slots ``k`` that are chosen for each sample ``b``.

    Args:
        mixture: What is chosen; shared by the banks of a pool.
        slots: Size of the pool.
        in_features: Size of ``x``.
        out_features: Size of what is added.
        rank: Rows of ``A``.
        scale: Of what is added.
    """

    def __init__(
        self, mixture: Mixture, slots: int, in_features: int, out_features: int, rank: int, scale: float = 1.0
    ) -> None:
        super().__init__(slots, in_features, out_features, rank, scale)
        self.mixture = mixture

    def adapted(self, x: Tensor, y: Tensor, paths: Sequence[Slots]) -> Tensor:
        """``(B, ..., D)`` and ``(B, ..., D_out)`` to the latter's shape.

        Raises:
            ValueError: If the layer does not have the samples first, one row of tensors each.
        """
        slots, shares = self.mixture.slots, self.mixture.shares
        if slots is None or shares is None:
            return y
        if len(x) != len(slots):
            raise ValueError(
                f"a layer with a pool of updates was given {len(x)} rows for {len(slots)} samples; name with `at` "
                "layers that have the samples first, each in one row."
            )
        rows = x.reshape(len(x), -1, x.shape[-1])
        hidden = torch.einsum("bld,bkrd->blkr", rows, self.down[slots]) * shares[:, None, :, None]
        added = torch.einsum("blkr,bkro->blo", hidden, self.up[slots])
        return y + self.scale * added.reshape(y.shape)
