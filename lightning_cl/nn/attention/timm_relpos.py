"""timm's ``VisionTransformerRelPos``, which has no positions but those of two patches to each other."""

from __future__ import annotations

from typing import ClassVar

from lightning_cl.nn.attention.family import Networks
from lightning_cl.nn.attention.registry import register_attention
from lightning_cl.nn.attention.timm_network import TimmNetwork


@register_attention
class TimmRelPos(TimmNetwork):
    """Relative positions of each block or of all: nothing is added to the scores of prefix rows and prompt tokens."""

    name: ClassVar[str] = "timm VisionTransformerRelPos"
    networks: ClassVar[Networks] = ("timm.models.vision_transformer_relpos.VisionTransformerRelPos",)
