"""Draw the weights that half fine-tuning keeps frozen: a share of each category of a transformer, or of the layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

#: What transformers of timm, Hugging Face and OpenCLIP call their embeddings, where these are no ``nn.Embedding``.
EMBEDDINGS = {"embeddings", "patch_embed", "pos_embed", "positional_embedding", "cls_token", "class_embedding"}

#: Frozen parts of parameters: a name, and which thirds of its rows; ``None``: all of it.
Unit = list[tuple[str, int | None]]


def embedding_names(network: nn.Module) -> set[str]:
    """Names of all parameters of a network's embeddings: by the kind of layer, or by their usual names."""
    layers = {name for name, layer in network.named_modules() if isinstance(layer, (nn.Embedding, nn.EmbeddingBag))}
    names = (name for name, _ in network.named_parameters())
    return {name for name in names if name.rpartition(".")[0] in layers or not EMBEDDINGS.isdisjoint(name.split("."))}


def frozen_share(
    weights: Mapping[str, Tensor], share: float, generator: Generator, embeddings: Collection[str] = ()
) -> dict[str, Tensor]:
    """Masks, true where a weight stays, of a random share of each category (HFT, arXiv:2404.18466).

    In a transformer as timm writes it: of each block's four attention matrices ``q``, ``k``, ``v`` (thirds of the rows
    of ``attn.qkv``) and ``attn.proj`` a share; ``mlp.fc1`` in a share of the blocks and ``mlp.fc2`` in as many of the
    others; and so for ``norm1`` and ``norm2``. Biases go with their matrix; all else is trained. In any other network
    a share of the layers but the embeddings, as a whole.

    Args:
        weights: The parameters among which to choose, by name.
        share: In [0, 1]; numbers of matrices and blocks are rounded down.
        generator: On the CPU; the same one gives the same masks everywhere.
        embeddings: Names of parameters that are never chosen.
    """
    prefixes = sorted({name.removesuffix("attn.qkv.weight") for name in weights if name.endswith("attn.qkv.weight")})
    frozen: list[Unit] = []
    for block in prefixes:
        thirds: list[Unit] = [_layer(weights, f"{block}attn.qkv", part) for part in range(3)]
        frozen += _some([*thirds, _layer(weights, f"{block}attn.proj")], share, generator)
    for first, second in (("mlp.fc1", "mlp.fc2"), ("norm1", "norm2")):
        order = torch.randperm(len(prefixes), generator=generator).tolist()
        count = int(share * len(order))
        frozen += [_layer(weights, prefixes[i] + first) for i in order[:count]]
        frozen += [_layer(weights, prefixes[i] + second) for i in order[len(order) - count :]]
    if not prefixes:
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in weights if name not in embeddings))
        units = [[entry for entry in _layer(weights, layer) if entry[0] not in embeddings] for layer in layers]
        frozen = _some(units, share, generator)
    masks = {name: torch.zeros(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    for name, part in (entry for unit in frozen for entry in unit):
        rows = masks[name] if part is None else masks[name].chunk(3)[part]
        rows.fill_(True)
    return masks


def _layer(weights: Mapping[str, Tensor], layer: str, part: int | None = None) -> Unit:
    """The parameters of a layer itself."""
    return [(name, part) for name in weights if name.rpartition(".")[0] == layer]


def _some(units: Sequence[Unit], share: float, generator: Generator) -> list[Unit]:
    chosen = torch.randperm(len(units), generator=generator)[: int(share * len(units))]
    return [units[i] for i in chosen.tolist()]
