"""The two towers of an open_clip model with prompts in their layers, as pure functions of the model's own weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.precision import wide

#: How a layer's new prompts meet those of the layers before: see :func:`renew_prompts`.
PromptMode = Literal["replace", "accumulate", "accumulate_same"]
PROMPT_MODES: tuple[PromptMode, ...] = ("replace", "accumulate", "accumulate_same")


def renew_prompts(x: Tensor, at: int, have: int, prompts: Tensor, layer: int, mode: PromptMode) -> tuple[Tensor, int]:
    """Bring the prompts of ``layer`` into the tokens before its block.

    Args:
        x: ``(B, N, D)`` tokens, of which ``have`` are prompts.
        at: Position of the first prompt.
        have: Number of prompt tokens in ``x``.
        prompts: ``(L, K, D)``; beyond layer ``L - 1`` nothing is changed.
        layer: Zero-based index of the block that comes next.
        mode: ``"replace"``: the outputs of the earlier prompts go, those of this layer come. ``"accumulate"``: they
            stay, those of this layer come behind them. ``"accumulate_same"``: they go, and the prompts of all layers
            so far come, as they were learned.

    Returns:
        The tokens, and how many of them are prompts now.
    """
    if layer >= len(prompts):
        return x, have
    new = prompts[: layer + 1].flatten(0, 1) if mode == "accumulate_same" else prompts[layer]
    kept = at + have if mode == "accumulate" else at
    parts = [x[:, :kept], new.to(x.dtype).expand(x.shape[0], -1, -1), x[:, at + have :]]
    return torch.cat(parts, dim=1), kept - at + len(new)


# ---------------------------------------------------------------------- blocks


def run_block(block: Any, x: Tensor, mask: Tensor | None = None, rows: Tensor | int | None = None) -> Tensor:
    """One residual block of open_clip; ``(B, N, D)`` to ``(B, N, D)``, or only the rows that are read.

    Args:
        block: A ``ResidualAttentionBlock``; other kinds are run as they are.
        x: Tokens.
        mask: ``(N, N)`` bool, true where a row may look; ``None``: everywhere.
        rows: The first so many rows, or ``(B,)`` one row of each sequence.
    """
    if not _is_plain(block):
        bias = None if mask is None else torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)
        return _rows(block(x, attn_mask=bias), rows)
    if mask is not None and rows is not None:
        mask = mask[rows][:, None, None] if isinstance(rows, Tensor) else mask[:rows]
    read = _rows(x, rows)
    read = read + block.ls_1(_attend(block.attn, block.ln_1(x), mask, rows))
    result: Tensor = read + block.ls_2(block.mlp(block.ln_2(read)))
    return result


def _is_plain(block: Any) -> bool:
    attn = getattr(block, "attn", None)
    known = type(attn) is nn.MultiheadAttention and attn.in_proj_weight is not None and attn.bias_k is None
    return known and hasattr(block, "ls_1") and not hasattr(block, "ln_1_kv") and not hasattr(block, "ln_attn")


def _rows(x: Tensor, rows: Tensor | int | None) -> Tensor:
    if isinstance(rows, Tensor):
        return x[torch.arange(x.shape[0], device=x.device), rows][:, None]
    return x[:, :rows]


def _attend(attn: nn.MultiheadAttention, x: Tensor, mask: Tensor | None, rows: Tensor | int | None) -> Tensor:
    weight, bias, width = attn.in_proj_weight, attn.in_proj_bias, attn.embed_dim
    if rows is None:
        q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
    else:  # queries of the rows that are read, keys and values of all
        bias_q, bias_kv = (None, None) if bias is None else (bias[:width], bias[width:])
        q = F.linear(_rows(x, rows), weight[:width], bias_q)
        k, v = F.linear(x, weight[width:], bias_kv).chunk(2, dim=-1)
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
    dropout = attn.dropout if attn.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    projected: Tensor = attn.out_proj(out.transpose(1, 2).flatten(2))
    return projected


# ---------------------------------------------------------------------- towers


def text_tower(clip: Any) -> Any:
    """The part of an open_clip model that reads text: the model itself, or its ``text``."""
    return getattr(clip, "text", clip)


#: Parts of an open_clip model that have no part in reading text.
NOT_TEXT = ("visual", "logit_scale", "logit_bias")


def encode_texts(
    clip: Any, tokens: Tensor, prompts: Tensor | None = None, mode: PromptMode = "replace", unit: bool = True
) -> Tensor:
    """``(C, D)`` text features, with prompts behind the start token.

    The prompts of layer 0 take part in the positions, so the words behind them move by ``K`` places; later ones do
    not. In the last block only the end token is computed, which is exact, as is leaving out what comes behind it.

    Args:
        clip: An open_clip model with a causal text tower, see :func:`check_text_tower`.
        tokens: ``(C, N)`` token ids; the end token has the highest. ``N`` may be shorter than the context.
        prompts: ``(L, K, D_text)``; ``None``: plain CLIP.
        mode: See :func:`renew_prompts`.
        unit: Scale the features to unit length.
    """
    tower = text_tower(clip)
    x = tower.token_embedding(tokens).to(tower.transformer.get_cast_dtype())
    end, have = tokens.argmax(dim=1), 0
    if prompts is not None:
        x, have = renew_prompts(x, 1, 0, prompts, 0, mode)
    x = x + tower.positional_embedding[: x.shape[1]].to(x.dtype)
    blocks = tower.transformer.resblocks
    for layer, block in enumerate(blocks):
        if prompts is not None and layer:
            x, have = renew_prompts(x, 1, have, prompts, layer, mode)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        x = run_block(block, x, mask, end + have if layer == len(blocks) - 1 else None)
    x = tower.ln_final(x)[:, 0]
    projection = tower.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return F.normalize(wide(x), dim=-1) if unit else wide(x)


class _TextReader(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        return encode_texts(self.clip, tokens)


def encode_texts_with(clip: Any, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """:func:`encode_texts` with some weights by name in the place of the model's own."""
    named = {f"clip.{name}": weight for name, weight in weights.items()}
    found: Tensor = torch.func.functional_call(_TextReader(clip), named, (tokens,))
    return found


def encode_images(
    visual: Any, images: Tensor, prompts: Tensor | None = None, mode: PromptMode = "accumulate"
) -> Tensor:
    """``(B, D)`` image features, with prompts at the end of the sequence, the same for all images.

    The prompts of layer 0 pass the norm before the blocks, later ones do not; none has a position. In the last block
    only the class token is computed.

    Args:
        visual: open_clip's ``VisionTransformer``, see :func:`check_vision_tower`.
        images: ``(B, 3, H, W)``.
        prompts: ``(L, K, D_vision)``; ``None``: plain CLIP.
        mode: See :func:`renew_prompts`.
    """
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    x = torch.cat([first, x], dim=1) + visual.positional_embedding.to(x.dtype)
    own, have = x.shape[1], 0
    if prompts is not None:
        x, have = renew_prompts(x, own, 0, prompts, 0, mode)
    x = visual.ln_pre(x)
    blocks = visual.transformer.resblocks
    for layer, block in enumerate(blocks):
        if prompts is not None and layer:
            x, have = renew_prompts(x, own, have, prompts, layer, mode)
        x = run_block(block, x, rows=1 if layer == len(blocks) - 1 else None)
    pooled: Tensor = visual.ln_post(x)[:, 0]
    return pooled if visual.proj is None else pooled @ visual.proj


# ---------------------------------------------------------------------- what fits


def check_text_tower(clip: Any) -> None:
    """Refuse a text tower that :func:`encode_texts` would run differently.

    Raises:
        ValueError: If it is of another kind, not causal, or not read at the end token.
    """
    tower = text_tower(clip)
    kind, advice = type(tower).__name__, "use an open_clip model whose text tower is CLIP's, such as ViT-B-16-quickgelu"
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    missing = [part for part in parts if not hasattr(tower, part)]
    if missing or not hasattr(tower.transformer, "resblocks"):
        raise ValueError(
            f"the text tower is a {kind} without {', '.join(missing) or 'residual blocks'}, but prompts need the "
            f"causal transformer of CLIP (towers from Hugging Face have other blocks); {advice}."
        )
    if getattr(tower, "cls_emb", None) is not None:
        raise ValueError(f"the text tower is a {kind} that reads an extra class token (as CoCa has); {advice}.")
    mask = getattr(tower, "attn_mask", None)
    if mask is None or not torch.equal(torch.isneginf(mask), torch.ones_like(mask, dtype=torch.bool).triu(1)):
        raise ValueError(
            f"the text tower is a {kind} without a causal mask (as SigLIP has), but prompts behind the start token "
            f"rely on it; {advice}."
        )
    pooling = getattr(tower, "text_pool_type", getattr(tower, "pool_type", "argmax"))
    if pooling != "argmax":
        raise ValueError(f"the text tower is read at {pooling!r}, but prompts need the end token (argmax); {advice}.")


def check_vision_tower(visual: Any) -> None:
    """Refuse an image tower that :func:`encode_images` would run differently.

    Raises:
        ValueError: If it is no ``VisionTransformer`` of open_clip, or is not read at its class token.
    """
    from open_clip.transformer import VisionTransformer

    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"the image tower is a {type(visual).__name__}, but vision prompts need open_clip's own VisionTransformer; "
            "use a model such as ViT-B-16-quickgelu, or prompt the text tower alone with `vision_prompts=False`."
        )
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.output_tokens:
        raise ValueError(
            "the image tower is not read at its class token alone (it pools patches or gives tokens out), but vision "
            "prompts need that; use another model, or `vision_prompts=False`."
        )


def feature_width(clip: Any) -> int:
    """Size of the features that both towers give."""
    projection = text_tower(clip).text_projection
    if projection is None:
        return int(text_tower(clip).ln_final.weight.shape[0])
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])
