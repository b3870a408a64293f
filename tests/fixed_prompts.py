"""A provider of given prompts, and networks that have it."""

from __future__ import annotations

from typing import Any

import torch
from attention_models import WIDTH, head_of, network_of, tower_of
from torch import nn

from lightning_cl.nn import Prefix, PromptProvider, Prompts
from lightning_cl.nn.attention import family_of, put_in_prompts


class Fixed(PromptProvider):
    """The same prefix in some layers, and the same tokens, for all images; remembers its queries."""

    def __init__(self, layers=(1,), length=3, tokens=0, appended=0, pool=False, query_layer=None):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        draw = lambda *shape: nn.Parameter(torch.randn(*shape, dtype=torch.float64, generator=generator))  # noqa: E731
        self.layers, self.pool_tokens, self.query_layer = tuple(layers), pool, query_layer
        self.uses_tokens = bool(tokens or appended)
        self.prefix, self.tokens = draw(2, 1, length, WIDTH), draw(1, tokens, WIDTH)
        self.appended, self.queries = draw(1, appended, WIDTH), []

    def forward(self, query):
        self.queries.append(query)
        return Prompts(
            {layer: Prefix(*self.prefix) for layer in self.layers} if self.prefix.numel() else {},
            tokens=self.tokens if self.tokens.numel() else None,
            pool_tokens=self.pool_tokens,
            appended={layer: self.appended for layer in self.layers} if self.appended.numel() else {},
        )


def prompted(network: Any, **options: Any) -> tuple[Any, Fixed]:
    """The network, or one of this name, with fixed prompts in it."""
    network = network_of(network) if isinstance(network, str) else network
    tower, provider = tower_of(network), Fixed(**options)
    family = family_of(tower)
    assert family is not None
    put_in_prompts(tower, provider, family, head_of(network))
    return network, provider
