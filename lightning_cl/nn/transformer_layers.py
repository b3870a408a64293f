"""Sort a transformer's weights into attention matrices, MLP matrices and norms, by the names that libraries use."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

#: Parameters that belong together: a name, and which third of the fused matrix of queries, keys and values; or all.
Unit = list[tuple[str, int | None]]

#: One layer for queries, keys and values, of which each has a third: timm and ModernBERT, ``nn.MultiheadAttention``
#: (open_clip, torchvision), GPT-2. Not ``query_key_value``: in BLOOM and GPT-NeoX each head's rows stand together.
_FUSED = re.compile(r"qkv|Wqkv|in_proj|c_attn")
_PROJECTION = re.compile(r"query|key|value|dense|[qkvo]|W?[qkvo]|([qkvoc]|out)_(proj|lin)|proj|to_([qkv]|out)")
_NORM = re.compile(r"(.*_)?(layer_?)?(norm|ln)(_?\d+|_.*)?|.*norm", re.IGNORECASE)
_NORM_OF_HEADS = re.compile(r"(q|k|query|key)_?(norm|ln|layer_?norm)", re.IGNORECASE)
_NUMBER = re.compile(r"(.*_)?\d+")
#: ``nn.MultiheadAttention`` has the weights of its first layer itself, as ``attn.in_proj_weight``.
_OWN_WEIGHT = re.compile(r"(proj)_(weight|bias)$")


@dataclass
class Block:
    """The units of a block: those of each of its attentions, of its MLP, and its norms, in the order of the network."""

    attentions: dict[str, list[Unit]] = field(default_factory=lambda: defaultdict(list))
    mlp: list[Unit] = field(default_factory=list)
    norms: list[Unit] = field(default_factory=list)


def transformer_blocks(weights: Mapping[str, Tensor], skip: Collection[str] = ()) -> list[Block]:
    """The blocks of a network that have at least four attention matrices, sorted by name; none in other networks.

    Known are the names of timm, of ``nn.MultiheadAttention`` (open_clip, torchvision, PyTorch) and of Hugging Face's
    BERT, ViT, GPT-2, Llama, T5 and their relatives. Where queries, keys and values of the heads take turns in one
    matrix (GPT-NeoX, BLOOM) their rows have no names, and there are no blocks. Biases go with their matrix; norms of
    queries and keys, scales of layers and tables of positions are in no unit.

    Args:
        weights: Parameters by name.
        skip: Names of parameters that are in no unit, such as those of embeddings.
    """
    layers: dict[str, list[str]] = defaultdict(list)
    for name in weights:
        layer, _, leaf = _OWN_WEIGHT.sub(r"\1.\2", name).rpartition(".")
        if name not in skip and leaf in {"weight", "bias"}:
            layers[layer].append(name)
    kinds = {layer: kind for layer, names in layers.items() if (kind := _kind(layer, weights[names[0]]))}
    paths = _attentions([layer for layer, kind in kinds.items() if kind == "matrix"])
    blocks: dict[str, Block] = defaultdict(Block)
    for layer, kind in kinds.items():
        found = [block for block in set(paths.values()) if layer.startswith(block)]
        if not found:
            continue
        block, attention = blocks[max(found, key=len)], next((a for a in paths if layer.startswith(a)), None)
        units = _units(layer, layers[layer])
        if kind == "norm":
            block.norms += units
        elif attention is None:
            block.mlp += units
        elif _is_projection(layer):
            block.attentions[attention] += units
    return [b for _, b in sorted(blocks.items()) if any(len(units) >= 4 for units in b.attentions.values())]


def fused_parts(name: str, weight: Tensor) -> int:
    """3 for a matrix that makes queries, keys and values, each by a third of its rows, by its name and shape; else 1.

    The shape alone says nothing: the first layer of an MLP may be three times as high as wide, too.

    Args:
        name: Of the parameter.
        weight: The parameter.
    """
    layer = _OWN_WEIGHT.sub(r"\1.\2", name).rpartition(".")[0].rpartition(".")[2]
    thirds = weight.ndim == 2 and weight.shape[0] == 3 * weight.shape[1]
    return 3 if thirds and (_FUSED.fullmatch(layer) or layer in ("qkv_proj", "to_qkv")) else 1


def _kind(layer: str, weight: Tensor) -> Any:
    leaf = layer.rpartition(".")[2]
    if _NORM.fullmatch(leaf):
        return None if _NORM_OF_HEADS.fullmatch(leaf) else "norm"
    return "matrix" if weight.ndim > 1 else None


def _attentions(layers: list[str]) -> dict[str, str]:
    """The path of each attention, as ``blocks.0.attn.``, to that of its block: its innermost number with an MLP."""
    found = {}
    for layer in layers:
        parts = layer.split(".")
        numbers = [i for i, part in enumerate(parts) if _NUMBER.fullmatch(part)]
        for number in reversed(numbers):
            inner = next((i for i in range(number + 1, len(parts)) if "att" in parts[i].lower()), None)
            block = ".".join(parts[: number + 1]) + "."
            if inner is not None and any(_beside(other, block) for other in layers):
                found[".".join(parts[: inner + 1]) + "."] = block
                break
    return found


def _beside(layer: str, block: str) -> bool:
    """Whether a layer is of a block, but of no attention."""
    return layer.startswith(block) and "att" not in layer.removeprefix(block).lower()


def _is_projection(layer: str) -> bool:
    leaf = re.sub(r"\.\d+$", "", layer).rpartition(".")[2]  # `to_out.0` of diffusers
    return bool(_PROJECTION.fullmatch(leaf) or _FUSED.fullmatch(leaf))


def _units(layer: str, names: list[str]) -> list[Unit]:
    fused = _FUSED.fullmatch(layer.rpartition(".")[2])
    return [[(name, part) for name in names] for part in (range(3) if fused else (None,))]
