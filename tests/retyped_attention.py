"""The attention of every tiny network, typed again from its formula, with prefix rows that carry no position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attention_models import HEADS, WIDTH
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def heads(rows: Tensor) -> Tensor:
    """``(B, N, H * d)`` to ``(B, H, N, d)``, ``d`` being what a head has."""
    return rows.unflatten(2, (-1, WIDTH // HEADS)).transpose(1, 2)


def mix(q: Tensor, k: Tensor, v: Tensor, prefix: Pair, bias: Tensor | float = 0.0) -> Tensor:
    """``softmax([Q P_K^T, Q K^T + bias] / sqrt(d)) [P_V; V]`` of ``(B, H, N, d)`` rows, as ``(B, N, H * d)``."""
    key, value = (heads(rows) for rows in prefix)  # of one image, or of every one; windows of an image are neighbours
    rows = [i * len(key) // len(q) for i in range(len(q))]
    of_prefix = q @ key[rows].mT / q.shape[-1] ** 0.5
    own = q @ k.mT / q.shape[-1] ** 0.5 + bias
    weights = torch.cat([of_prefix, own], dim=-1).softmax(dim=-1)
    length = key.shape[2]
    return (weights[..., :length] @ value[rows] + weights[..., length:] @ v).transpose(1, 2).flatten(2)


def turned(x: Tensor, angles: Tensor, first: int) -> Tensor:
    """timm's rotary positions on neighbouring channels, from token ``first`` on."""
    sin, cos = angles.chunk(2, dim=-1)
    part = x[:, :, first:]
    crossed = torch.stack([-part[..., 1::2], part[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([x[:, :, :first], part * cos + crossed * sin], dim=2)


def turned_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Llama's rotary positions on halves of the channels."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]


# ---------------------------------------------------------------------- one attention layer each


def _timm(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        q, k, v = map(heads, attn.qkv(x).chunk(3, dim=-1))
        return attn.proj(mix(attn.q_norm(q), attn.k_norm(k), v, prefix))

    return forward


def _parallel(block: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        hidden, *rows = block.in_proj(block.in_norm(x)).split([4 * WIDTH, *[WIDTH] * 3], dim=-1)
        q, k, v = map(heads, rows)
        mixed = block.attn_out_proj(mix(block.q_norm(q), block.k_norm(k), v, prefix))
        bias = 0 if block.mlp_bias is None else block.mlp_bias
        return x + mixed + block.mlp_out_proj(block.mlp_act(hidden + bias))

    return forward


def _eva(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, rope: Tensor, **_: Any) -> Tensor:
        q, k, v = attn.qkv(x).chunk(3, dim=-1)
        if getattr(attn, "q_bias", None) is not None:
            q, v = q + attn.q_bias, v + attn.v_bias
        q, k = (turned(t, rope, attn.num_prefix_tokens) for t in (attn.q_norm(heads(q)), attn.k_norm(heads(k))))
        return attn.proj(attn.norm(mix(q, k, heads(v), prefix)))

    return forward


def _beit(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        q, k, v = attn.qkv(x).chunk(3, dim=-1)
        bias = shared_rel_pos_bias
        if bias is None:
            bias = attn.relative_position_bias_table[attn.relative_position_index].permute(2, 0, 1)
        return attn.proj(mix(heads(q + attn.q_bias), heads(k), heads(v + attn.v_bias), prefix, bias))

    return forward


def _relpos(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        q, k, v = map(heads, attn.qkv(x).chunk(3, dim=-1))
        bias = shared_rel_pos
        if bias is None:
            table, index = attn.rel_pos.relative_position_bias_table, attn.rel_pos.relative_position_index
            bias = table[index.view(x.shape[1], -1)].permute(2, 0, 1)
        return attn.proj(mix(q, k, v, prefix, bias))

    return forward


def _swin(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = map(heads, attn.qkv(x).chunk(3, dim=-1))
        bias = attn.relative_position_bias_table[attn.relative_position_index].permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask.repeat(len(x) // len(mask), 1, 1)[:, None]
        return attn.proj(mix(q, k, v, prefix, bias))

    return forward


def _hf(attn: Any, prefix: Pair) -> Callable[..., Any]:
    out = getattr(attn, "o_proj", None) or getattr(attn, "out_proj", None)

    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        q, k, v = (heads(p(hidden_states)) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        return out(mix(q, k, v, prefix)), None

    return forward


def _bert(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, *_: Any, attention_mask: Tensor, **__: Any) -> tuple[Tensor, None]:
        q, k, v = (heads(p(hidden_states)) for p in (attn.query, attn.key, attn.value))
        bias = torch.zeros(attention_mask.shape, dtype=q.dtype).masked_fill(~attention_mask, -torch.inf)
        return mix(q, k, v, prefix, bias), None

    return forward


def _modern_bert(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, position_embeddings: Pair, attention_mask: Tensor, **_: Any) -> tuple[Tensor, None]:
        q, k, v = map(heads, attn.Wqkv(x).chunk(3, dim=-1))
        q, k = (turned_half(rows, *position_embeddings) for rows in (q, k))
        bias = torch.zeros(attention_mask.shape, dtype=q.dtype).masked_fill(~attention_mask, -torch.inf)
        return attn.Wo(mix(q, k, v, prefix, bias)), None

    return forward


def _llama(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, position_embeddings: Pair, attention_mask: Tensor, **_: Any) -> Any:
        q, k, v = (heads(p(hidden_states)) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        q, k = (turned_half(rows, *position_embeddings) for rows in (q, k))
        k, v = (rows[:, [0, 0, 1, 1]] for rows in (k, v))  # two heads of keys for four of queries
        bias = torch.zeros(attention_mask.shape, dtype=q.dtype).masked_fill(~attention_mask, -torch.inf)
        return attn.o_proj(mix(q, k, v, prefix, bias)), None

    return forward


def _torch(attn: Any, prefix: Pair) -> Callable[..., Any]:
    def forward(x: Tensor, *_: Any, **__: Any) -> Any:
        q, k, v = (nn.functional.linear(x, attn.in_proj_weight, attn.in_proj_bias)).chunk(3, dim=-1)
        q, k = (getattr(attn, name, nn.Identity())(heads(t)) for name, t in (("ln_q", q), ("ln_k", k)))
        out = attn.out_proj(mix(q, k, heads(v), prefix))
        return (out, None) if isinstance(attn, nn.MultiheadAttention) else out

    return forward


#: By the beginning of a network's name: what is typed again, and where it is in a block.
TYPED: dict[str, tuple[Callable[[Any, Pair], Callable[..., Any]], Callable[[Any], list[Any]]]] = {
    "parallel-things": (_timm, lambda block: [part.attn for part in block.attns]),
    "parallel-post": (_timm, lambda block: [block.attn]),
    "parallel": (_parallel, lambda block: [block]),
    "vit": (_timm, lambda block: [block.attn]),
    "eva": (_eva, lambda block: [block.attn]),
    "beit": (_beit, lambda block: [block.attn]),
    "relpos": (_relpos, lambda block: [block.attn]),
    "swin": (_swin, lambda block: [block.attn]),
    "hf-bert": (_bert, lambda block: [block.attention.self]),
    "hf-modernbert": (_modern_bert, lambda block: [block.attn]),
    "hf-llama": (_llama, lambda block: [block.self_attn]),
    "hf-clip": (_hf, lambda block: [block.self_attn]),
    "hf": (_hf, lambda block: [block.attention]),
    "torchvision": (_torch, lambda block: [block.self_attention]),
    "open_clip": (_torch, lambda block: [block.attn]),
}


def retype(name: str, block: Any, prefix: Pair) -> None:
    """Let a block attend as it is written here, with a prefix ``(1 or B, L, D)`` each for keys and values."""
    typed, parts = next(TYPED[start] for start in TYPED if name.startswith(start))
    for part in parts(block):
        part.forward = typed(part, prefix)
