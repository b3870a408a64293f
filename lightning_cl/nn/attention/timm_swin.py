"""timm's ``SwinTransformer``: attention within windows of patches, in stages of different widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_cl.nn.attention.family import Networks
from lightning_cl.nn.attention.registry import register_attention
from lightning_cl.nn.attention.timm_network import TimmNetwork


@register_attention
class TimmSwin(TimmNetwork):
    """A prefix enters every window of an image, without a position, in the blocks of the last stage.

    The other stages have other widths than the feature that finds the prompts. Tokens have no place in a map of
    patches.
    """

    name: ClassVar[str] = "timm SwinTransformer"
    networks: ClassVar[Networks] = ("timm.models.swin_transformer.SwinTransformer",)
    takes_tokens: ClassVar[bool] = False

    def blocks(self, network: Any) -> Sequence[nn.Module]:
        """Those of the last stage."""
        return list(network.layers[-1].blocks)

    def width(self, network: Any) -> int:
        """That of the last stage."""
        return int(network.num_features)

    def summary(self, network: Any, tokens: Tensor) -> Tensor:
        """The mean of the patches, ``(B, H, W, D)``."""
        mean: Tensor = tokens.flatten(1, 2).mean(dim=1)
        return mean
