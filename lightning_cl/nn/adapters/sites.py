"""The usual places of adapters: in a timm ViT, and in networks of any library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from torch import nn

from lightning_cl.nn.adapters.banks import SSF, Adapter
from lightning_cl.nn.adapters.frozen import freeze_backbone
from lightning_cl.nn.adapters.injection import Adapters, inject

#: Ways of tuning a frozen ViT: adapters beside the MLPs, or SSF behind the layers.
Tuning = Literal["adapter", "ssf"]
#: Layers that SSF follows.
SSF_LAYERS = r"patch_embed\.proj|blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)|norm"

#: Behind the number of a block, as in ``blocks.0.mlp``; where no name has it, as in ``encoder_layer_0.mlp``.
_NUMBERED = (re.compile(r"(^|\.)\d+\."), re.compile(r"_\d+\."))

#: Layers that compute with the weights of their parts, whose own forward is not called.
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def adapters_beside_mlp(vit: Any, slots: int, rank: int, scale: float, dropout: float) -> Adapters:
    """An :class:`Adapter` beside the MLP of every block, which reads what the MLP's norm reads (AdaptFormer)."""

    def make(layer: nn.Module) -> Adapter:
        return Adapter(slots, vit.embed_dim, rank, scale, dropout)

    return inject(vit, make, at=r"blocks\.\d+\.drop_path2", read="norm2")


def ssf_behind_layers(vit: Any, slots: int, std: float = 0.02) -> Adapters:
    """An :class:`SSF` behind the patches' projection, every norm and every linear layer (arXiv:2210.08823)."""

    def make(layer: Any) -> SSF:
        if isinstance(layer, nn.Conv2d):
            return SSF(slots, layer.out_channels, std, channel_dim=1)
        width = layer.out_features if isinstance(layer, nn.Linear) else layer.normalized_shape[-1]
        return SSF(slots, width, std)

    return inject(vit, make, at=SSF_LAYERS, site="ssf")


def tune_frozen_vit(vit: Any, tuning: Tuning, rank: int, scale: float, dropout: float) -> Adapters:
    """Freeze a ViT and put what is tuned instead into it, with one slot.

    Args:
        vit: Of timm.
        tuning: ``"adapter"``, or ``"ssf"``, which has no size.
        rank: Hidden size of an adapter.
        scale: Of what an adapter adds.
        dropout: Of an adapter, behind its ReLU.
    """
    ssf = tuning == "ssf"
    adapters = ssf_behind_layers(vit, 1) if ssf else adapters_beside_mlp(vit, 1, rank, scale, dropout)
    freeze_backbone(vit)
    return adapters


def block_linears(module: nn.Module) -> list[str]:
    """Names of the linear layers within numbered blocks, of any library's network, as ``blocks.0.attn.qkv``."""
    return [name for name, part in _in_blocks(module) if isinstance(part, nn.Linear)]


def block_mlps(module: nn.Module) -> list[str]:
    """Names of the parts of numbered blocks, attention aside, that hold linear layers from D channels back to D."""
    return [name for name, part in _in_blocks(module) if not isinstance(part, nn.Linear) and _is_mlp(part)]


def split_mlps(module: nn.Module) -> list[str]:
    """Names of parts ``output`` that make an MLP together with a neighbour ``intermediate``, as in BERT."""
    parts = dict(_in_blocks(module))
    seconds = [name for name in parts if name.endswith(".output")]
    firsts = {name: parts.get(name.removesuffix("output") + "intermediate") for name in seconds}
    return [name for name, first in firsts.items() if first is not None and _join(first, parts[name])]


def _join(first: nn.Module, second: nn.Module) -> bool:
    reads, makes = widths(first), widths(second)
    return reads is not None and makes is not None and reads == makes[::-1]


def widths(layer: nn.Module) -> tuple[int, int] | None:
    """Channels that a linear layer, or a part that begins and ends with one, reads and makes; ``None``: it has none."""
    linears = [part for part in layer.modules() if isinstance(part, nn.Linear)]
    return (linears[0].in_features, linears[-1].out_features) if linears else None


def exactly(names: list[str]) -> str:
    """A regular expression of these names."""
    return "|".join(map(re.escape, names))


def ending(at: str) -> str:
    """A regular expression of the whole names of a module's layers that end as another one says."""
    return rf"(?!continual\.)(?:.*\.)?(?:{at})"


def _in_blocks(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Parts behind a number in their names; not of layers that read their parts' weights without calling them."""
    fused = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, _FUSED))
    called = {name: part for name, part in module.named_modules() if not name.startswith(fused)}
    kinds = ({name: part for name, part in called.items() if kind.search(name)} for kind in _NUMBERED)
    found = next((kind for kind in kinds if any(isinstance(part, nn.Linear) for part in kind.values())), {})
    of_images = {name: part for name, part in found.items() if "visual" in name.split(".")}
    return iter((of_images or found).items())  # CLIP: its text tower may not be part of the pass


def _is_mlp(part: nn.Module) -> bool:
    linears = [child for child in part.children() if isinstance(child, nn.Linear)]
    if len(linears) < 2 or "att" in type(part).__name__.lower():
        return False
    return linears[0].in_features == linears[-1].out_features
