"""timm's ``Beit``, whose attention adds a bias for the positions of two patches to each other."""

from __future__ import annotations

from typing import ClassVar

from lightning_cl.nn.attention.family import Networks
from lightning_cl.nn.attention.registry import register_attention
from lightning_cl.nn.attention.timm_network import TimmNetwork


@register_attention
class TimmBeit(TimmNetwork):
    """Relative positions: nothing is added to the scores of prefix rows and of prompt tokens."""

    name: ClassVar[str] = "timm Beit"
    networks: ClassVar[Networks] = ("timm.models.beit.Beit",)
