"""Draw the weights that half fine-tuning keeps frozen: a share of each category of a transformer, or of the layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from lightning_cl.nn.transformer_layers import Block, Unit, transformer_blocks

#: What transformers of timm, Hugging Face and OpenCLIP call their embeddings, where these are no ``nn.Embedding``.
EMBEDDINGS = {"embeddings", "patch_embed", "pos_embed", "positional_embedding", "cls_token", "class_embedding"}


def embedding_names(network: nn.Module) -> set[str]:
    """Names of all parameters of a network's embeddings: by the kind of layer, or by their usual names."""
    layers = {name for name, layer in network.named_modules() if isinstance(layer, (nn.Embedding, nn.EmbeddingBag))}
    names = (name for name, _ in network.named_parameters())
    return {name for name in names if name.rpartition(".")[0] in layers or not EMBEDDINGS.isdisjoint(name.split("."))}


def frozen_share(
    weights: Mapping[str, Tensor], share: float, generator: Generator, embeddings: Collection[str] = ()
) -> dict[str, Tensor]:
    """Masks, true where a weight stays, of a random share of each category (HFT, arXiv:2404.18466).

    In a transformer whose layers have names that are known (see :func:`transformer_blocks`): of each attention's four
    matrices a share; the first matrix of the MLP in a share of the blocks, and the other or others in as many of the
    other blocks; and so for the norms. Biases go with their matrix; all else is trained. In any other network a share
    of the layers but the embeddings, as a whole.

    Args:
        weights: The parameters among which to choose, by name.
        share: In [0, 1]; numbers of matrices and blocks are rounded down.
        generator: On the CPU; the same one gives the same masks everywhere.
        embeddings: Names of parameters that are never chosen.
    """
    blocks = transformer_blocks(weights, embeddings)
    frozen = _of_blocks(blocks, share, generator) if blocks else _of_layers(weights, share, generator, embeddings)
    masks = {name: torch.zeros(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    for name, part in (entry for unit in frozen for entry in unit):
        mask = masks[name]
        wide = mask.ndim > 1 and mask.shape[1] == 3 * mask.shape[0]  # GPT-2 has a layer's outputs in columns
        rows = mask if part is None else mask.chunk(3, int(wide))[part]
        rows.fill_(True)
    return masks


def _of_blocks(blocks: Sequence[Block], share: float, generator: Generator) -> list[Unit]:
    frozen: list[Unit] = []
    for block in blocks:
        for units in block.attentions.values():
            frozen += _some(units, share, generator)
    for category in ([block.mlp for block in blocks], [block.norms for block in blocks]):
        order = torch.randperm(len(category), generator=generator).tolist()
        count = int(share * len(order))
        frozen += [unit for i in order[:count] for unit in category[i][: len(category[i]) // 2]]
        frozen += [unit for i in order[len(order) - count :] for unit in category[i][len(category[i]) // 2 :]]
    return frozen


def _of_layers(
    weights: Mapping[str, Tensor], share: float, generator: Generator, embeddings: Collection[str]
) -> list[Unit]:
    layers: dict[str, Unit] = {}
    for name in weights:
        unit = layers.setdefault(name.rpartition(".")[0], [])
        if name not in embeddings:
            unit.append((name, None))
    return _some([unit for unit in layers.values() if unit], share, generator)


def _some(units: Sequence[Unit], share: float, generator: Generator) -> list[Unit]:
    chosen = torch.randperm(len(units), generator=generator)[: int(share * len(units))]
    return [units[i] for i in chosen.tolist()]
