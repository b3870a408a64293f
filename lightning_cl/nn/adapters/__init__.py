"""Small trained parts beside the layers of a frozen network: banks of them, and how they get there."""

from lightning_cl.nn.adapters.banks import SSF, Adapter, Bank, LoRA, RankOne
from lightning_cl.nn.adapters.frozen import FrozenBackbone, freeze_backbone
from lightning_cl.nn.adapters.injection import Adapters, inject
from lightning_cl.nn.adapters.paths import fold_paths, folded, unfolded
from lightning_cl.nn.adapters.sites import Tuning, adapters_beside_mlp, ssf_behind_layers, tune_frozen_vit

__all__ = [
    "SSF",
    "Adapter",
    "Adapters",
    "Bank",
    "FrozenBackbone",
    "LoRA",
    "RankOne",
    "Tuning",
    "adapters_beside_mlp",
    "fold_paths",
    "folded",
    "freeze_backbone",
    "inject",
    "ssf_behind_layers",
    "tune_frozen_vit",
    "unfolded",
]
