"""Prefix tuning in timm ViTs: attention with extra key and value rows, as pure functions of a block's own weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What a transformer block must have to be run with a prefix.
BLOCK_PARTS = ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2")
ATTENTION_PARTS = ("qkv", "q_norm", "k_norm", "attn_drop", "proj", "proj_drop", "num_heads")


class Prefix(NamedTuple):
    """Key and value rows that are put in front of a layer's own, after the qkv projection.

    Attributes:
        key: ``(B, L, D)``, or ``(1, L, D)`` when all samples share it.
        value: As ``key``.
    """

    key: Tensor
    value: Tensor


def split_heads(rows: Tensor, num_heads: int, batch_size: int) -> Tensor:
    """``(B or 1, L, D)`` to ``(B, H, L, D / H)``, each head a contiguous chunk of channels; shared rows are a view."""
    size, length, width = rows.shape
    heads = rows.reshape(size, length, num_heads, width // num_heads).transpose(1, 2)
    return heads if size == batch_size else heads.expand(batch_size, -1, -1, -1)


def prefix_attention(attn: nn.Module, x: Tensor, prefix: Prefix | None, rows: int | None = None) -> Tensor:
    """Self-attention of a timm ``Attention`` with a prefix: ``softmax(Q [P_K; K]^T / sqrt(d)) [P_V; V]``, projected.

    Queries are untouched, so the number of tokens stays. (DualPrompt, arXiv:2204.04799, as in both official code
    bases: the prefix is concatenated after the qkv projection.)

    Args:
        attn: The frozen attention layer.
        x: ``(B, N, D)`` normalised tokens.
        prefix: Extra rows, or ``None``.
        rows: Compute only the first ``rows`` output tokens (keys and values still come from all).

    Returns:
        ``(B, N, D)``, or ``(B, rows, D)``.
    """
    batch, tokens, _ = x.shape
    heads = int(attn.num_heads)  # type: ignore[arg-type]
    if rows is None:
        rows = tokens
        q, k, v = attn.qkv(x).reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[operator]
    else:
        q, k, v = _project_rows(attn, x, rows, heads)
    q, k = attn.q_norm(q), attn.k_norm(k)  # type: ignore[operator]
    if prefix is not None and prefix.key.shape[1]:
        k = _prepend(split_heads(prefix.key, heads, batch), k)
        v = _prepend(split_heads(prefix.value, heads, batch), v)
    dropout = attn.attn_drop.p if attn.training else 0.0  # type: ignore[union-attr]
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=float(dropout))  # type: ignore[arg-type]
    out = out.transpose(1, 2).reshape(batch, rows, -1)
    if isinstance(getattr(attn, "norm", None), nn.Module):
        out = attn.norm(out)  # type: ignore[operator]
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(x[:, :rows]).sigmoid()  # type: ignore[operator]
    projected: Tensor = attn.proj_drop(attn.proj(out))  # type: ignore[operator]
    return projected


def _project_rows(attn: nn.Module, x: Tensor, rows: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries for the first rows only; keys and values for all tokens."""
    weight, bias = attn.qkv.weight, attn.qkv.bias  # type: ignore[union-attr]
    width = weight.shape[0] // 3  # type: ignore[union-attr, index, operator]
    batch, tokens, _ = x.shape
    bias_q, bias_kv = (None, None) if bias is None else (bias[:width], bias[width:])  # type: ignore[index]
    q = F.linear(x[:, :rows], weight[:width], bias_q)  # type: ignore[index, arg-type]
    kv = F.linear(x, weight[width:], bias_kv)  # type: ignore[index, arg-type]
    k, v = kv.reshape(batch, tokens, 2, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return q.reshape(batch, rows, heads, -1).transpose(1, 2), k, v


def _prepend(prefix: Tensor, own: Tensor) -> Tensor:
    return torch.cat([prefix.to(own.dtype), own], dim=2)


def run_block(block: nn.Module, x: Tensor, prefix: Prefix | None = None, rows: int | None = None) -> Tensor:
    """One pre-norm timm ``Block`` with a prefix; ``(B, N, D)`` to ``(B, N or rows, D)``."""
    attended = prefix_attention(block.attn, block.norm1(x), prefix, rows)  # type: ignore[arg-type, operator]
    x = x if rows is None else x[:, :rows]
    x = x + block.drop_path1(block.ls1(attended))  # type: ignore[operator]
    x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))  # type: ignore[operator]
    return x


def check_block(block: nn.Module, index: int) -> None:
    """Refuse blocks that :func:`run_block` cannot run.

    Raises:
        ValueError: Names the block's class and what is missing.
    """
    missing = [part for part in BLOCK_PARTS if not hasattr(block, part)]
    if not missing:
        missing = [f"attn.{part}" for part in ATTENTION_PARTS if not hasattr(block.attn, part)]
    if missing:
        raise ValueError(
            f"block {index} of the ViT is a {type(block).__name__} without {', '.join(missing)}; prompts need plain "
            "timm blocks (`timm.models.vision_transformer.Block`)."
        )
