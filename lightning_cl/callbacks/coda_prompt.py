"""CODA-Prompt as a drop-in callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lightning_cl.callbacks.prompt_method import PromptMethod, checked_layers
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.coda_prompt import CODAPromptPool

if TYPE_CHECKING:
    from lightning_cl.datamodules import StreamInfo


class CODAPrompt(PromptMethod):
    """CODA-Prompt: decomposed attention-based prompting (Smith et al., CVPR 2023, arXiv:2211.13218).

    Freezes the ViT and trains, for each task, a slice of prompt components with their keys and attention vectors; the
    frozen network's own feature of an image decides how much of each component enters which layer's keys and values.
    No replay, no task identity at test time.

    Args:
        pool_size: Components per layer over all tasks; each task gets ``pool_size // num_tasks``. When the stream is
            extended, each new task gets as many as the old ones.
        prompt_length: Rows per component: half of them keys, half values. Even.
        layers: Zero-based indices of the layers that get a prefix.
        ortho_weight: Weight of the orthogonality penalty; the authors recommend 0, or about 1e-6.
        init: ``"qr"``: new components exactly orthonormal to all earlier ones; ``"gram_schmidt"``: as released.
        backbone: Dotted path of the timm ``VisionTransformer``; found when ``None``.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss; the paper's is ``"task"``.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first; the paper does.
        cache_queries: Compute the query of an evaluation image once per run.
    """

    state_key = "lightning_cl.CODAPrompt"

    def __init__(
        self,
        pool_size: int = 100,
        prompt_length: int = 8,
        layers: Sequence[int] = (0, 1, 2, 3, 4),
        ortho_weight: float = 0.0,
        init: Literal["qr", "gram_schmidt"] = "qr",
        backbone: str | None = None,
        head: str | None = None,
        train_mask: TrainMask = "task",
        reset_optimizer: bool = True,
        cache_queries: bool = True,
    ) -> None:
        super().__init__(backbone, head, train_mask, reset_optimizer, cache_queries)
        self.pool_size, self.prompt_length, self.layers = pool_size, prompt_length, checked_layers(layers)
        self.ortho_weight, self.init = ortho_weight, init
        self.adds_loss = ortho_weight > 0

    def provider(self, info: StreamInfo, width: int, depth: int) -> CODAPromptPool:
        """The pool; see :class:`~lightning_cl.nn.CODAPromptPool`."""
        per_task = self.pool_size // info.planned_tasks
        pool_size = max(self.pool_size, per_task * info.num_tasks)  # more than planned for when the stream was extended
        return CODAPromptPool(
            info.num_tasks, width, pool_size, self.prompt_length, self.layers, self.ortho_weight, self.init
        )
