"""Classifiers on features, and the exact statistics of classes that some of them are made from."""

from lightning_cl.nn.class_texts import TextHead
from lightning_cl.nn.heads.alignment import align_head, align_norms, fit_bias
from lightning_cl.nn.heads.cosine import (
    CosineHead,
    ETFHead,
    cosine_answer,
    cosine_logits,
    imprint_rows,
    proxy_logits,
    simplex_etf,
)
from lightning_cl.nn.heads.fit import fit_head
from lightning_cl.nn.heads.gaussians import Gaussians
from lightning_cl.nn.heads.gram import GramHead, ridge_solution
from lightning_cl.nn.heads.key_values import KeyValueHead
from lightning_cl.nn.heads.mahalanobis import MahalanobisHead
from lightning_cl.nn.heads.online_ridge import OnlineRidge
from lightning_cl.nn.heads.prototypes import PrototypeHead
from lightning_cl.nn.heads.ridge_choice import RIDGES, choose_ridge, held_out
from lightning_cl.nn.heads.soft_grid import SoftGrid, SoftGridHead
from lightning_cl.nn.heads.statistics import ClassStatistics
from lightning_cl.nn.heads.streaming_lda import StreamingLDAHead

__all__ = [
    "RIDGES",
    "ClassStatistics",
    "CosineHead",
    "ETFHead",
    "Gaussians",
    "GramHead",
    "KeyValueHead",
    "MahalanobisHead",
    "OnlineRidge",
    "PrototypeHead",
    "SoftGrid",
    "SoftGridHead",
    "StreamingLDAHead",
    "TextHead",
    "align_head",
    "align_norms",
    "choose_ridge",
    "cosine_answer",
    "cosine_logits",
    "fit_bias",
    "fit_head",
    "held_out",
    "imprint_rows",
    "proxy_logits",
    "ridge_solution",
    "simplex_etf",
]
