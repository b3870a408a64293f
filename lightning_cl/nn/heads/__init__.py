"""Classifiers on features, and the exact statistics of classes that some of them are made from."""

from lightning_cl.nn.class_texts import TextHead
from lightning_cl.nn.heads.alignment import align_head, align_norms
from lightning_cl.nn.heads.cosine import CosineHead, ETFHead, cosine_logits, simplex_etf
from lightning_cl.nn.heads.fit import fit_head
from lightning_cl.nn.heads.gaussians import Gaussians
from lightning_cl.nn.heads.gram import GramHead, ridge_solution
from lightning_cl.nn.heads.prototypes import PrototypeHead
from lightning_cl.nn.heads.statistics import ClassStatistics

__all__ = [
    "ClassStatistics",
    "CosineHead",
    "ETFHead",
    "Gaussians",
    "GramHead",
    "PrototypeHead",
    "TextHead",
    "align_head",
    "align_norms",
    "cosine_logits",
    "fit_head",
    "ridge_solution",
    "simplex_etf",
]
