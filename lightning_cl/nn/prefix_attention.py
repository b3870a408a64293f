"""Prefix tuning in timm ViTs: attention with extra key and value rows, as pure functions of a block's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block


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
    return _heads(rows, num_heads).expand(batch_size, -1, -1, -1)


def _heads(rows: Tensor, num_heads: int) -> Tensor:
    """``(B, L, H * d)`` to ``(B, H, L, d)``, as a view."""
    size, length, width = rows.shape
    return rows.view(size, length, num_heads, width // num_heads).transpose(1, 2)


def prefix_attention(attn: Attention, x: Tensor, prefix: Prefix | None, rows: int | None = None) -> Tensor:
    """Self-attention of a timm ``Attention`` with a prefix: ``softmax(Q [P_K; K]^T / sqrt(d)) [P_V; V]``, projected.

    Queries are untouched, so the number of tokens stays. (DualPrompt, arXiv:2204.04799, as in both official code
    bases: the prefix is concatenated after the qkv projection.)

    Args:
        attn: The frozen attention layer.
        x: ``(B, N, D)`` normalised tokens.
        prefix: Extra rows, or ``None``.
        rows: Compute only the first ``rows`` output tokens (keys and values still come from all); ``None``: all.

    Returns:
        ``(B, N, D)``, or ``(B, rows, D)``.
    """
    batch, heads = x.shape[0], attn.num_heads  # not len(x), which `torch.export` would take for a constant
    q, k, v = _project(attn, x, rows)
    q, k = attn.q_norm(q), attn.k_norm(k)
    if prefix is not None and prefix.key.shape[1]:
        k = _prepend(split_heads(prefix.key, heads, batch), k)
        v = _prepend(split_heads(prefix.value, heads, batch), v)
    dropout = attn.attn_drop.p if attn.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    out = out.transpose(1, 2).flatten(2)  # (B, rows, D)
    if getattr(attn, "norm", None) is not None:  # newer timm only, as is the gate
        out = attn.norm(out)
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(x[:, :rows]).sigmoid()  # type: ignore[misc]  # not None
    projected: Tensor = attn.proj_drop(attn.proj(out))
    return projected


def _project(attn: Attention, x: Tensor, rows: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``(B, H, rows, D / H)`` of the first rows only; keys and values of all tokens."""
    if rows is None or type(attn.qkv) is not nn.Linear:  # an adapter in its place: it knows how to run itself
        q, k, v = _heads(attn.qkv(x), 3 * attn.num_heads).chunk(3, dim=1)
        return q[:, :, :rows], k, v
    weight, bias = attn.qkv.weight, attn.qkv.bias
    width = len(weight) // 3
    bias_q, bias_kv = (None, None) if bias is None else (bias[:width], bias[width:])
    q = _heads(F.linear(x[:, :rows], weight[:width], bias_q), attn.num_heads)
    k, v = _heads(F.linear(x, weight[width:], bias_kv), 2 * attn.num_heads).chunk(2, dim=1)
    return q, k, v


def _prepend(prefix: Tensor, own: Tensor) -> Tensor:
    return torch.cat([prefix.to(own.dtype), own], dim=2)


def as_prefix(block: Block, tokens: Tensor) -> Prefix:
    """Tokens that join the input of ``block`` and are cut off after it, as a prefix: the block's answer is the same.

    What these tokens would attend to is never read, and attention knows no order, so only their keys and values matter
    (deep prompt tuning, VPT, arXiv:2203.12119, eq. 5). Shared tokens are projected once, not once per image.

    Args:
        block: The block that the tokens join.
        tokens: ``(B, L, D)``, or ``(1, L, D)`` when all samples share them.
    """
    attn = cast("Attention", block.attn)
    _, key, value = _project(attn, block.norm1(tokens), 0)
    return Prefix(*(rows.transpose(1, 2).flatten(2) for rows in (attn.k_norm(key), value)))


def join_prefixes(first: Prefix | None, second: Prefix) -> Prefix:
    """The rows of both; each may be shared by all samples."""
    if first is None:
        return second
    batch = max(first.key.shape[0], second.key.shape[0])
    pairs = zip(first, second, strict=True)
    return Prefix(*(torch.cat([t.expand(batch, -1, -1) for t in pair], dim=1) for pair in pairs))


def embedded(vit: Any, images: Tensor) -> Tensor:
    """``(B, N, D)`` tokens of ``(B, C, H, W)`` images in front of a timm ViT's first block, positions added."""
    tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    return tokens


def run_block(block: Block, x: Tensor, prefix: Prefix | None = None, rows: int | None = None) -> Tensor:
    """One pre-norm timm ``Block`` with a prefix; ``(B, N, D)`` to ``(B, N or rows, D)``."""
    attended = prefix_attention(cast("Attention", block.attn), block.norm1(x), prefix, rows)
    x = x[:, :rows] + block.drop_path1(block.ls1(attended))
    x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return x


def check_block(block: nn.Module, index: int) -> None:
    """Refuse blocks that :func:`run_block` would run differently from their own ``forward``.

    Raises:
        ValueError: Names the classes of the block and of its attention.
    """
    from timm.models.vision_transformer import Attention, Block  # type: ignore[attr-defined]  # home of both at first

    attention = getattr(block, "attn", None)
    if type(block).forward is Block.forward and getattr(type(attention), "forward", None) is Attention.forward:
        return
    inside = "" if attention is None else f" with the attention {type(attention).__name__}"
    raise ValueError(
        f"block {index} of the ViT is a {type(block).__name__}{inside}, but prompts need timm's plain "
        "`vision_transformer.Block` with `Attention`; use a ViT that is built from these."
    )
