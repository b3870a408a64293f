"""Trained tokens behind those of an image (visual prompt tuning), and networks that answer path by path."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.adapters.banks import Bank
from lightning_cl.nn.adapters.injection import Adapters
from lightning_cl.nn.extension import extend


class TokenBank(Bank):
    """``(T, P, D)`` tokens at one place, zero at the start.

    Args:
        slots: Tasks or experts, ``T``.
        count: Tokens, ``P``.
        width: ``D``.
    """

    tokens: Tensor

    def __init__(self, slots: int, count: int, width: int) -> None:
        super().__init__(slots)
        self._stacked(tokens=(count, width))


def tokens_in_blocks(vit: Any, slots: int, count: int, deep: bool) -> Adapters:
    """Tokens that every image gets (VPT, arXiv:2203.12119); names of the network's parameters stay.

    Args:
        vit: Of timm.
        slots: Tasks or experts.
        count: Tokens, at least 1.
        deep: New tokens in front of every block, whose outputs are dropped behind it; else one set through all blocks.
    """
    places = {f"blocks.{i}": block for i, block in enumerate(vit.blocks)} if deep else {"blocks": vit.blocks}
    like = vit.pos_embed if vit.pos_embed is not None else next(vit.parameters())
    adapters = Adapters({name: TokenBank(slots, count, vit.embed_dim).to(like) for name in places})
    for name, place in places.items():
        extend(place, TokenLayer)
        place.__dict__["_tokens_of"] = adapters, name
    return adapters


class TokenLayer(nn.Module):
    """Mixin for a live layer of tokens: it is given more of them, and gives back as many as it was given."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """``(B, N, D)`` to the same."""
        adapters, name = self.__dict__["_tokens_of"]
        (path,) = adapters.paths
        if path is None:
            return super().forward(x, *args, **kwargs)
        tokens = adapters.bank(name).stack("tokens", [path]).to(x.dtype)
        out = super().forward(torch.cat([x, tokens.expand(len(x), -1, -1)], dim=1), *args, **kwargs)
        return out[:, : x.shape[1]]


class LoopedNetwork(nn.Module):
    """Mixin for a live ViT: its features for every selected path, one pass each; :func:`loop_paths` sets it up."""

    def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As before, with ``(P * B, ...)`` rows, path after path."""
        adapters, frozen = self.__dict__["_loops_for"]
        parts = []
        for path in adapters.paths:
            with adapters.selected(path):
                own = super().forward_features if path is not None or frozen is None else frozen.forward_features  # type: ignore[misc]
                parts.append(own(x, *args, **kwargs))
        if len(parts) > 1 and not torch.compiler.is_compiling():
            adapters.folded_rows = x.shape[0]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def loop_paths(vit: nn.Module, adapters: Adapters, frozen: nn.Module | None = None) -> None:
    """As ``fold_paths``, for adapters that cannot answer for several paths in one batch.

    Args:
        vit: Of timm.
        adapters: Its adapters; without banks there is one path, the network itself.
        frozen: What answers for the path ``None``, if that is not the network without its adapters.
    """
    extend(vit, LoopedNetwork)
    vit.__dict__["_loops_for"] = adapters, frozen
