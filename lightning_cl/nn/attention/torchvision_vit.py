"""torchvision's ``VisionTransformer``, on ``nn.MultiheadAttention``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from lightning_cl.nn.attention.family import AttentionFamily, Networks
from lightning_cl.nn.attention.registry import register_attention


@register_attention
class TorchvisionViT(AttentionFamily):
    """``vit_b_16`` and its like; the feature is what ``heads`` are given, the class token."""

    name: ClassVar[str] = "torchvision VisionTransformer"
    networks: ClassVar[Networks] = ("torchvision.models.vision_transformer.VisionTransformer",)

    def blocks(self, network: Any) -> Sequence[nn.Module]:
        """The encoder's layers."""
        return list(network.encoder.layers)

    def width(self, network: Any) -> int:
        """Its ``hidden_dim``."""
        return int(network.hidden_dim)

    def norm(self, network: Any) -> nn.Module | None:
        """The encoder's last norm."""
        found: nn.Module = network.encoder.ln
        return found
