"""Networks of any library with prompts: extra key and value rows, extra tokens, and the feature that the head reads."""

from lightning_cl.nn.attention.family import AttentionFamily
from lightning_cl.nn.attention.huggingface import HuggingFace
from lightning_cl.nn.attention.open_clip_vit import OpenCLIPVision
from lightning_cl.nn.attention.registry import attention_families, family_of, find_networks, register_attention
from lightning_cl.nn.attention.rows import ExtraRows
from lightning_cl.nn.attention.setup import check_prompts, put_in_prompts
from lightning_cl.nn.attention.timm_beit import TimmBeit
from lightning_cl.nn.attention.timm_eva import TimmEva
from lightning_cl.nn.attention.timm_relpos import TimmRelPos
from lightning_cl.nn.attention.timm_swin import TimmSwin
from lightning_cl.nn.attention.timm_vit import TimmViT
from lightning_cl.nn.attention.torchvision_vit import TorchvisionViT

__all__ = [
    "AttentionFamily",
    "ExtraRows",
    "HuggingFace",
    "OpenCLIPVision",
    "TimmBeit",
    "TimmEva",
    "TimmRelPos",
    "TimmSwin",
    "TimmViT",
    "TorchvisionViT",
    "attention_families",
    "check_prompts",
    "family_of",
    "find_networks",
    "put_in_prompts",
    "register_attention",
]
