"""Small trained parts beside the layers of a frozen network: banks of them, and how they get there."""

from lightning_cl.nn.adapters.banks import SSF, Adapter, Bank, LoRA, RankOne
from lightning_cl.nn.adapters.frozen import FrozenBackbone, freeze_all_but, freeze_backbone
from lightning_cl.nn.adapters.injection import Adapters, inject
from lightning_cl.nn.adapters.low_rank import FixedDownLoRA, ScaledLoRA
from lightning_cl.nn.adapters.mixture import AdapterMixture
from lightning_cl.nn.adapters.paths import fold_paths, folded, unfolded
from lightning_cl.nn.adapters.pooled import Mixture, PooledLoRA
from lightning_cl.nn.adapters.sites import (
    adapters_beside_mlp,
    block_linears,
    block_mlps,
    split_mlps,
    ssf_behind_layers,
    tune_frozen_vit,
)
from lightning_cl.nn.adapters.tokens import TokenBank, loop_paths, tokens_in_blocks

__all__ = [
    "SSF",
    "Adapter",
    "AdapterMixture",
    "Adapters",
    "Bank",
    "FixedDownLoRA",
    "FrozenBackbone",
    "LoRA",
    "Mixture",
    "PooledLoRA",
    "RankOne",
    "ScaledLoRA",
    "TokenBank",
    "adapters_beside_mlp",
    "block_linears",
    "block_mlps",
    "fold_paths",
    "folded",
    "freeze_all_but",
    "freeze_backbone",
    "inject",
    "loop_paths",
    "split_mlps",
    "ssf_behind_layers",
    "tokens_in_blocks",
    "tune_frozen_vit",
    "unfolded",
]
