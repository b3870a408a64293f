"""What timm's transformers have in common: blocks in a row, and features apart from the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_cl.nn.adapters.frozen import HEAD_PARTS
from lightning_cl.nn.attention.family import AttentionFamily


class TimmNetwork(AttentionFamily):
    """Networks with ``blocks``, ``norm``, ``forward_features`` and ``forward_head``."""

    def blocks(self, network: Any) -> Sequence[nn.Module]:
        """All blocks."""
        return list(network.blocks)

    def width(self, network: Any) -> int:
        """Its ``embed_dim``."""
        return int(network.embed_dim)

    def norm(self, network: Any) -> nn.Module | None:
        """The norm before the pooling, or a place holder there."""
        found: nn.Module = network.norm
        return found

    def entry(self, network: Any) -> str:
        """Users call it, too."""
        return "forward_features"

    def feature(self, network: Any, value: Any, inputs: Mapping[str, Any]) -> Tensor | None:
        """What timm's pooling makes of the tokens, before the classifier."""
        return super().feature(network, network.forward_head(value, pre_logits=True), inputs)

    def summary(self, network: Any, tokens: Tensor) -> Tensor:
        """The class token; the mean of the patches where there is none."""
        with_class = getattr(network, "cls_token", None) is not None
        return tokens[:, 0] if with_class else tokens[:, network.num_prefix_tokens :].mean(dim=1)

    def trained_parts(self, network: Any, head: nn.Module) -> Sequence[str]:
        """Heads, and the dropout before them."""
        return HEAD_PARTS

    @contextmanager
    def joined(self, block: Any, tokens: int) -> Iterator[None]:
        """Fused attention, whatever timm chose for this machine."""
        own = [part for part in block.modules() if getattr(part, "fused_attn", True) is False]
        for part in own:
            part.fused_attn = True
        try:
            yield
        finally:
            for part in own:
                part.fused_attn = False
