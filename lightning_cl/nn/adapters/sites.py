"""The usual places of adapters in a timm ViT."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from lightning_cl.nn.adapters.banks import SSF, Adapter
from lightning_cl.nn.adapters.frozen import freeze_backbone
from lightning_cl.nn.adapters.injection import Adapters, inject

#: Ways of tuning a frozen ViT: adapters beside the MLPs, or SSF behind the layers.
Tuning = Literal["adapter", "ssf"]
#: Layers that SSF follows.
SSF_LAYERS = r"patch_embed\.proj|blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)|norm"


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
