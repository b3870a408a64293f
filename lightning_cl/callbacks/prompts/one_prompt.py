"""OnePrompt as a drop-in callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import converted
from lightning_cl.callbacks.prompts.prompt_method import PromptMethod, checked_layers
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.nn.one_prompt import OnePromptSet


@dataclass(eq=False)
class OnePrompt(PromptMethod):
    """OnePrompt: a single set of prefixes for the whole stream (Huang et al., ICLR 2024, arXiv:2402.04129).

    No pool, no keys and no query pass, so training and inference cost one pass. Together with
    :class:`VirtualOutlierRegularizer` it is OVOR: ``callbacks=[OnePrompt(), VirtualOutlierRegularizer()]``.

    Args:
        layers: Zero-based layers that get a prefix.
        lengths: Rows per layer, for the keys and again for the values; one number, or one per layer.
        init_range: Uniform range of the initial prefixes.
        train_mask: Which classes compete in the training loss; the paper's is ``"task"``.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first; the paper does.
    """

    state_key: ClassVar[str] = "lightning_cl.OnePrompt"
    small: ClassVar[dict[str, Any]] = {"layers": (0, 1), "lengths": 4}

    layers: Sequence[int] = converted(checked_layers, default=(0, 1, 2, 3, 4))
    lengths: int | Sequence[int] = (5, 5, 20, 20, 20)
    init_range: tuple[float, float] = (0.0, 1.0)
    cache_queries: bool = field(init=False, default=False)  # there are none
    cache_training_queries: bool = field(init=False, default=False)

    def provider(self, info: StreamInfo, width: int, num_outputs: int) -> OnePromptSet:
        """The prefixes; see :class:`~lightning_cl.nn.OnePromptSet`."""
        return self.filled(OnePromptSet, width=width)
