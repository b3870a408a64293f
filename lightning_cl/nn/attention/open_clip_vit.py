"""The image tower of open_clip, with ``nn.MultiheadAttention`` or open_clip's own attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from lightning_cl.nn.attention.family import AttentionFamily, Networks
from lightning_cl.nn.attention.registry import register_attention


@register_attention
class OpenCLIPVision(AttentionFamily):
    """The feature is the class token before the projection, as wide as the tower."""

    name: ClassVar[str] = "open_clip VisionTransformer"
    networks: ClassVar[Networks] = ("open_clip.transformer.VisionTransformer",)

    def blocks(self, network: Any) -> Sequence[nn.Module]:
        """Its residual blocks."""
        return list(network.transformer.resblocks)

    def width(self, network: Any) -> int:
        """Its ``width``."""
        return int(network.transformer.width)

    def norm(self, network: Any) -> nn.Module | None:
        """The norm behind the blocks, unless it comes behind the pooling."""
        if network.final_ln_after_pool or network.attn_pool is not None:
            return None
        found: nn.Module = network.ln_post
        return found
