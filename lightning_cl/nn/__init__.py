"""Parameters and mathematics in pure torch: prompts, prefix attention, masks and guards."""

from lightning_cl.nn.class_texts import TextHead
from lightning_cl.nn.clip_prompts import CLIPPrompts
from lightning_cl.nn.coda_prompt import CODAPromptPool
from lightning_cl.nn.dual_prompt import DualPromptPool
from lightning_cl.nn.fisher import fisher_diagonal, per_sample_sum
from lightning_cl.nn.guard import SliceGuard
from lightning_cl.nn.heads import (
    ClassStatistics,
    CosineHead,
    ETFHead,
    Gaussians,
    GramHead,
    PrototypeHead,
    align_head,
    cosine_logits,
    ridge_solution,
    simplex_etf,
)
from lightning_cl.nn.l2p import L2PPool
from lightning_cl.nn.losses import cosine_distance, distillation, pooled_distance, supervised_contrastive
from lightning_cl.nn.masks import ClassMask
from lightning_cl.nn.mvp import MVPPool
from lightning_cl.nn.one_prompt import OnePromptSet
from lightning_cl.nn.orthogonal import orthogonality_penalty, orthonormal_rows
from lightning_cl.nn.outliers import energy, outlier_regularizer, synthesize_outliers
from lightning_cl.nn.prefix_attention import Prefix, prefix_attention
from lightning_cl.nn.prompts import PromptProvider, Prompts
from lightning_cl.nn.prototypes import PrototypeBank
from lightning_cl.nn.schedules import coda_cosine, cpe_clip_warmup
from lightning_cl.nn.weights import Snapshot, StepScale, ema, interpolate, pull_gradients, trained

__all__ = [
    "CLIPPrompts",
    "CODAPromptPool",
    "ClassMask",
    "ClassStatistics",
    "CosineHead",
    "DualPromptPool",
    "ETFHead",
    "Gaussians",
    "GramHead",
    "L2PPool",
    "MVPPool",
    "OnePromptSet",
    "Prefix",
    "PromptProvider",
    "Prompts",
    "PrototypeBank",
    "PrototypeHead",
    "SliceGuard",
    "Snapshot",
    "StepScale",
    "TextHead",
    "align_head",
    "coda_cosine",
    "cosine_distance",
    "cosine_logits",
    "cpe_clip_warmup",
    "distillation",
    "ema",
    "energy",
    "fisher_diagonal",
    "interpolate",
    "orthogonality_penalty",
    "orthonormal_rows",
    "outlier_regularizer",
    "per_sample_sum",
    "pooled_distance",
    "prefix_attention",
    "pull_gradients",
    "ridge_solution",
    "simplex_etf",
    "supervised_contrastive",
    "synthesize_outliers",
    "trained",
]
