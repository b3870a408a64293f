"""timm's ``VisionTransformer``: with or without a class token, register tokens, parallel blocks, distilled."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from lightning_cl.nn.attention.family import Networks
from lightning_cl.nn.attention.registry import register_attention
from lightning_cl.nn.attention.timm_network import TimmNetwork
from lightning_cl.nn.prefix_attention import check_block
from lightning_cl.nn.prompted_vit import PromptedViT

#: Blocks that attend once, through the usual softmax, but run otherwise than the plain one.
_OTHER_BLOCKS = {"ParallelScalingBlock", "ParallelThingsBlock", "ResPostBlock"}


@register_attention
class TimmViT(TimmNetwork):
    """Plain ones take the faster way of :class:`~lightning_cl.nn.prompted_vit.PromptedViT`: one shared embedding."""

    name: ClassVar[str] = "timm VisionTransformer"
    networks: ClassVar[Networks] = ("timm.models.vision_transformer.VisionTransformer",)

    def mixin(self, network: Any) -> type[nn.Module] | None:
        """The fast one, where all blocks are plain."""
        return None if self._other(network) else PromptedViT

    def check(self, network: Any, first: int) -> None:
        """Blocks of the kinds above are run as they are; others but the plain one are refused.

        Raises:
            ValueError: Names the block.
        """
        if not self._other(network):
            for index in range(first, len(network.blocks)):
                check_block(network.blocks[index], index)

    def _other(self, network: Any) -> bool:
        """Whether the blocks are of a known kind that is not the plain one."""
        attentions = {type(part).__name__ for block in network.blocks for part in block.modules()}
        return {type(block).__name__ for block in network.blocks} <= _OTHER_BLOCKS and not any(
            name.startswith("Diff") for name in attentions
        )
