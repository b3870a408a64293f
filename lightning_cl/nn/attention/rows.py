"""Attention with extra key and value rows, whatever library calls it: its calls to torch's attention are widened."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_cl.nn.attention.multihead import multihead_attention
from lightning_cl.nn.prefix_attention import Prefix

_MULTIHEAD = signature(F.multi_head_attention_forward)


class ExtraRows(TorchFunctionMode):
    """Within it, attention has a prefix's rows before its own, and takes tokens in front that no mask knows.

    It sees ``scaled_dot_product_attention`` and ``multi_head_attention_forward``, behind the projections and behind
    whatever turns keys by their positions, so prefix rows carry no position: rotary angles do not turn them, relative
    positions add nothing to their scores. Grouped key and value heads are repeated first, as rows have all heads.
    Nothing but the calls in this thread and in the ``with`` block is changed.

    Args:
        prefix: ``(B or 1, L, D)`` keys and values; ``B`` may be a part of the attention's batch (windows of an image).
        tokens: Number of tokens at the beginning of the sequence that masks and relative positions do not count.

    Attributes:
        used: Whether attention was called at all; ``False`` where a library computes its softmax by itself.
    """

    def __init__(self, prefix: Prefix | None, tokens: int = 0) -> None:
        super().__init__()
        self.prefix = prefix if prefix is not None and prefix.key.shape[1] else None
        self.tokens, self.used = tokens, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Widen calls of attention; torch calls this in the place of each of its functions."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.used = True
            return self.attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            self.used = True
            return multihead_attention(self.attend, _MULTIHEAD.bind(*args, **kwargs))
        return func(*args, **kwargs)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Compute ``softmax(Q [P_K; K]^T * scale + mask) [P_V; V]``; arguments as those of torch's attention."""
        own, length = key.shape[-2], 0
        if self.prefix is not None:
            if enable_gqa:
                groups = query.shape[-3] // key.shape[-3]
                key, value = (rows.repeat_interleave(groups, dim=-3) for rows in (key, value))
            key, value = _prepend(self.prefix.key, key), _prepend(self.prefix.value, value)
            length, enable_gqa = key.shape[-2] - own, False
        if is_causal and length:
            attn_mask = torch.ones(query.shape[-2], own, dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None:
            is_causal = False
            attn_mask = widen_mask(attn_mask, length, self.tokens if attn_mask.shape[-1] != own else 0)
        gqa = {"enable_gqa": True} if enable_gqa else {}  # newer torch only
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **gqa)


def widen_mask(mask: Tensor, columns: int, tokens: int) -> Tensor:
    """Let an attention mask, or a bias of relative positions, know of new keys, and of tokens in front.

    Every query sees the new keys without a bias. A new token sees what any query sees, so not what is padded.

    Args:
        mask: ``(..., Q or 1, K)``; bool (true: seen) or added to the scores.
        columns: New keys, ``L``, before all others.
        tokens: New tokens, ``T``, before the ``K`` known ones; rows are added for them, too, if there is more than one.

    Returns:
        ``(..., T + Q or 1, L + T + K)``.
    """
    if tokens and mask.shape[-2] > 1:
        mask = torch.cat([_seen_by_any(mask).expand(*mask.shape[:-2], tokens, -1), mask], dim=-2)
    seen = mask.new_ones if mask.dtype == torch.bool else mask.new_zeros
    return torch.cat([seen((*mask.shape[:-1], columns + tokens)), mask], dim=-1)


def _seen_by_any(mask: Tensor) -> Tensor:
    """Find what at least one query sees, ``(..., 1, K)``, without a bias."""
    if mask.dtype == torch.bool:
        return mask.any(dim=-2, keepdim=True)
    best = mask.amax(dim=-2, keepdim=True)
    return torch.where(best < -1e4, best, torch.zeros_like(best))


def _prepend(rows: Tensor, own: Tensor) -> Tensor:
    """Put ``(B or 1, L, H * d)`` rows before ``(B', H, N, d)`` own ones, each head a contiguous chunk of channels."""
    batch, heads, _, width = own.shape
    if rows.shape[2] != heads * width or (rows.shape[0] > 1 and batch % rows.shape[0]):
        raise ValueError(
            f"the prefix has {rows.shape[0]} x {rows.shape[2]} channels, but the attention has a batch of {batch} and "
            f"{heads} heads of {width} channels; prefixes need heads that are as wide as the network together, and one "
            "prefix, or one per image."
        )
    rows = rows.unflatten(2, (heads, width)).transpose(1, 2).to(own.dtype)
    rows = rows.expand(batch, -1, -1, -1) if rows.shape[0] == 1 else rows.repeat_interleave(batch // rows.shape[0], 0)
    return torch.cat([rows, own], dim=2)
