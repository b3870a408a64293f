"""Torch's multi-head attention, retyped so that keys and values can be changed between projection and softmax."""

from __future__ import annotations

from collections.abc import Callable
from inspect import BoundArguments
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def multihead_attention(attend: Callable[..., Tensor], given: BoundArguments) -> tuple[Tensor, None]:
    """Compute ``torch.nn.functional.multi_head_attention_forward`` with another function between its projections.

    Args:
        attend: Takes what ``scaled_dot_product_attention`` takes.
        given: The call's arguments; sequences first, ``(N, B, D)``, or ``(N, D)`` without a batch.

    Returns:
        The output, and no attention weights.

    Raises:
        ValueError: If weights are asked for, or the layer adds keys of its own.
    """
    given.apply_defaults()
    call: dict[str, Any] = given.arguments
    if call["bias_k"] is not None or call["add_zero_attn"] or call["static_k"] is not None:
        raise ValueError(
            "an attention layer adds keys of its own (`add_bias_kv`, `add_zero_attn`), before which prompts have no "
            "place; use `nn.MultiheadAttention` without."
        )
    query, key, value = call["query"], call["key"], call["value"]
    single = query.ndim == 2
    q, k, v = (_batch_first(rows, call["num_heads"]) for rows in _project(query, key, value, call))
    dropout = call["dropout_p"] if call["training"] else 0.0
    mixed = attend(q, k, v, _mask(call, q), dropout)
    out = F.linear(mixed.transpose(1, 2).flatten(2).transpose(0, 1), call["out_proj_weight"], call["out_proj_bias"])
    return (out.squeeze(1) if single else out), None


def _project(query: Tensor, key: Tensor, value: Tensor, call: dict[str, Any]) -> tuple[Tensor, ...]:
    if call["use_separate_proj_weight"]:
        weights = (call["q_proj_weight"], call["k_proj_weight"], call["v_proj_weight"])
    else:
        weights = call["in_proj_weight"].chunk(3)
    biases = (None,) * 3 if call["in_proj_bias"] is None else call["in_proj_bias"].chunk(3)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def _batch_first(rows: Tensor, heads: int) -> Tensor:
    """``(N, B, D)`` or ``(N, D)`` to ``(B, H, N, d)``."""
    rows = rows.unsqueeze(1) if rows.ndim == 2 else rows
    split: Tensor = rows.transpose(0, 1).unflatten(2, (heads, -1)).transpose(1, 2)
    return split


def _mask(call: dict[str, Any], q: Tensor) -> Tensor | None:
    """Join both masks of the layer in one that is added to the scores, ``(B or 1, H or 1, Q or 1, K)``."""
    mask, padding, total = call["attn_mask"], call["key_padding_mask"], None
    if mask is not None:
        mask = _added(mask, q)
        total = mask[None, None] if mask.ndim == 2 else mask.unflatten(0, (-1, call["num_heads"]))
    if padding is not None:
        hidden = _added(padding, q).reshape(-1, 1, 1, padding.shape[-1])
        total = hidden if total is None else total + hidden
    return total


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Turn a mask in which true means hidden into one that is added."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
