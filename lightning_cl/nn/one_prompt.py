"""OnePrompt (of OVOR, arXiv:2402.04129): one set of prefixes, trained on all tasks in turn; no pool, no query."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_cl.nn.prefix_attention import Prefix
from lightning_cl.nn.prompts import PromptProvider, Prompts


class OnePromptSet(PromptProvider):
    """A prefix per layer, the same for all images and tasks; never re-initialised and never protected.

    Args:
        width: Width ``D`` of the ViT.
        layers: Zero-based layers.
        lengths: Rows per layer, for the keys and again for the values; one number, or one per layer.
        init_range: Uniform range of the initial prefixes.

    Raises:
        ValueError: If the numbers of layers and lengths differ, or a length is below 1.
    """

    needs_query = False

    def __init__(
        self,
        width: int,
        layers: Sequence[int] = (0, 1, 2, 3, 4),
        lengths: int | Sequence[int] = (5, 5, 20, 20, 20),
        init_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        sizes = [lengths] * len(layers) if isinstance(lengths, int) else list(lengths)
        if len(sizes) != len(layers) or any(size < 1 for size in sizes):
            raise ValueError(
                f"`lengths` is {sizes} for {len(layers)} layers; give one number of rows, or one per layer, each at "
                "least 1."
            )
        self.layers = tuple(layers)
        self.prefixes = nn.ParameterList(torch.empty(2, size, width).uniform_(*init_range) for size in sizes)

    def forward(self, query: Tensor | None) -> Prompts:
        """The prefixes; ``query`` plays no part."""
        return Prompts({layer: Prefix(p[:1], p[1:]) for layer, p in zip(self.layers, self.prefixes, strict=True)})

    def extra_repr(self) -> str:
        """Sizes."""
        return f"layers={list(self.layers)}, lengths={[p.shape[1] for p in self.prefixes]}"
