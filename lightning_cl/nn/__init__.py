"""Parameters and mathematics in pure torch: prompts, prefix attention, masks and guards."""

from lightning_cl.nn.adapters import (
    SSF,
    Adapter,
    Adapters,
    Bank,
    FrozenBackbone,
    LoRA,
    RankOne,
    folded,
    freeze_backbone,
    inject,
)
from lightning_cl.nn.binary_weights import BinaryLinear, field_kl, metaplastic
from lightning_cl.nn.bits import pack_bits, straight_through, unpack_bits
from lightning_cl.nn.class_texts import TextHead
from lightning_cl.nn.clip_prompts import CLIPPrompts
from lightning_cl.nn.coda_prompt import CODAPromptPool
from lightning_cl.nn.convolved_weights import convolved
from lightning_cl.nn.data_selection import distinct, select_samples
from lightning_cl.nn.dual_prompt import DualPromptPool
from lightning_cl.nn.experience_selection import dual_cloning, select_transitions
from lightning_cl.nn.fisher import fisher_diagonal, per_sample_sum
from lightning_cl.nn.flow_matching import ActionFlow, changed_regime, follow, straight_lines
from lightning_cl.nn.gates import annealed_scale, compensation, free_share, gate_penalty
from lightning_cl.nn.gradients import project_on_reference, project_on_references
from lightning_cl.nn.guard import Guard, SliceGuard
from lightning_cl.nn.heads import (
    ClassStatistics,
    CosineHead,
    ETFHead,
    Gaussians,
    GramHead,
    KeyValueHead,
    MahalanobisHead,
    PrototypeHead,
    StreamingLDAHead,
    align_head,
    align_norms,
    cosine_logits,
    fit_head,
    ridge_solution,
    simplex_etf,
)
from lightning_cl.nn.heads.kernel_ridge import kernel_ridge
from lightning_cl.nn.hypernetwork import RecurrentHypernetwork
from lightning_cl.nn.input_grams import input_grams
from lightning_cl.nn.l2p import L2PPool
from lightning_cl.nn.lateral_connections import HebbianSubspace
from lightning_cl.nn.losses import cosine_distance, distillation, divergence, pooled_distance, supervised_contrastive
from lightning_cl.nn.masks import ClassMask, ElementMask, random_elements, smallest_elements
from lightning_cl.nn.mvp import MVPPool
from lightning_cl.nn.one_prompt import OnePromptSet
from lightning_cl.nn.online_memory import OnlineMemory, memory_step
from lightning_cl.nn.open_set import AggregatePosteriorBound, accepted_latents, latent_divergence
from lightning_cl.nn.orthogonal import orthogonality_penalty, orthonormal_rows
from lightning_cl.nn.outliers import energy, outlier_regularizer, synthesize_outliers
from lightning_cl.nn.prefix_attention import Prefix, prefix_attention
from lightning_cl.nn.prompts import PromptProvider, Prompts
from lightning_cl.nn.prototypes import PrototypeBank
from lightning_cl.nn.recurrent_cells import LeakyRNN, LiquidRNN, leaky_step, liquid_step
from lightning_cl.nn.schedules import coda_cosine, coda_cosine_released, cpe_clip_warmup, infinite_rate, warm_cosine
from lightning_cl.nn.selective_scan import SelectiveBlock
from lightning_cl.nn.subspace import StepProjection, SubspaceMemory, layer_inputs
from lightning_cl.nn.substitution import Substitutes, substitute, weight_layers
from lightning_cl.nn.task_inference import binary_task, entropy_slopes, one_shot_task, surest_task
from lightning_cl.nn.task_rows import TaskRows
from lightning_cl.nn.weights import (
    NamedTensors,
    Snapshot,
    StepEdit,
    StepScale,
    ema,
    interpolate,
    pull_gradients,
    trained,
)

__all__ = [
    "SSF",
    "ActionFlow",
    "Adapter",
    "Adapters",
    "AggregatePosteriorBound",
    "Bank",
    "BinaryLinear",
    "CLIPPrompts",
    "CODAPromptPool",
    "ClassMask",
    "ClassStatistics",
    "CosineHead",
    "DualPromptPool",
    "ETFHead",
    "ElementMask",
    "FrozenBackbone",
    "Gaussians",
    "GramHead",
    "Guard",
    "HebbianSubspace",
    "KeyValueHead",
    "L2PPool",
    "LeakyRNN",
    "LiquidRNN",
    "LoRA",
    "MVPPool",
    "MahalanobisHead",
    "NamedTensors",
    "OnePromptSet",
    "OnlineMemory",
    "Prefix",
    "PromptProvider",
    "Prompts",
    "PrototypeBank",
    "PrototypeHead",
    "RankOne",
    "RecurrentHypernetwork",
    "SelectiveBlock",
    "SliceGuard",
    "Snapshot",
    "StepEdit",
    "StepProjection",
    "StepScale",
    "StreamingLDAHead",
    "SubspaceMemory",
    "Substitutes",
    "TaskRows",
    "TextHead",
    "accepted_latents",
    "align_head",
    "align_norms",
    "annealed_scale",
    "binary_task",
    "changed_regime",
    "coda_cosine",
    "coda_cosine_released",
    "compensation",
    "convolved",
    "cosine_distance",
    "cosine_logits",
    "cpe_clip_warmup",
    "distillation",
    "distinct",
    "divergence",
    "dual_cloning",
    "ema",
    "energy",
    "entropy_slopes",
    "field_kl",
    "fisher_diagonal",
    "fit_head",
    "folded",
    "follow",
    "free_share",
    "freeze_backbone",
    "gate_penalty",
    "infinite_rate",
    "inject",
    "input_grams",
    "interpolate",
    "kernel_ridge",
    "latent_divergence",
    "layer_inputs",
    "leaky_step",
    "liquid_step",
    "memory_step",
    "metaplastic",
    "one_shot_task",
    "orthogonality_penalty",
    "orthonormal_rows",
    "outlier_regularizer",
    "pack_bits",
    "per_sample_sum",
    "pooled_distance",
    "prefix_attention",
    "project_on_reference",
    "project_on_references",
    "pull_gradients",
    "random_elements",
    "ridge_solution",
    "select_samples",
    "select_transitions",
    "simplex_etf",
    "smallest_elements",
    "straight_lines",
    "straight_through",
    "substitute",
    "supervised_contrastive",
    "surest_task",
    "synthesize_outliers",
    "trained",
    "unpack_bits",
    "warm_cosine",
    "weight_layers",
]
