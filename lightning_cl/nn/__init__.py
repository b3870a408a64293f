"""Parameters and mathematics in pure torch: prompts, prefix attention, masks and guards."""

from lightning_cl.nn.coda_prompt import CODAPromptPool
from lightning_cl.nn.guard import SliceGuard
from lightning_cl.nn.masks import ClassMask
from lightning_cl.nn.orthogonal import orthogonality_penalty, orthonormal_rows
from lightning_cl.nn.prefix_attention import Prefix, prefix_attention
from lightning_cl.nn.prompts import PromptProvider, Prompts
from lightning_cl.nn.schedules import coda_cosine

__all__ = [
    "CODAPromptPool",
    "ClassMask",
    "Prefix",
    "PromptProvider",
    "Prompts",
    "SliceGuard",
    "coda_cosine",
    "orthogonality_penalty",
    "orthonormal_rows",
    "prefix_attention",
]
