"""timm's ``Eva``: EVA-02 and DINOv3, whose attention turns queries and keys by their positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from lightning_cl.nn.attention.family import Networks
from lightning_cl.nn.attention.registry import register_attention
from lightning_cl.nn.attention.timm_network import TimmNetwork


@register_attention
class TimmEva(TimmNetwork):
    """Rotary positions: prefix rows and prompt tokens are not turned, like the class token."""

    name: ClassVar[str] = "timm Eva"
    networks: ClassVar[Networks] = ("timm.models.eva.Eva",)

    @contextmanager
    def joined(self, block: Any, tokens: int) -> Iterator[None]:
        """Tokens in front count as class and register tokens, which have no position."""
        turning = [part for part in block.modules() if hasattr(part, "num_prefix_tokens")]
        for part in turning:
            part.num_prefix_tokens += tokens
        try:
            with super().joined(block, tokens):
                yield
        finally:
            for part in turning:
                part.num_prefix_tokens -= tokens
