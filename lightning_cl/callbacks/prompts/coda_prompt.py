"""CODA-Prompt as a drop-in callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightning_cl.callbacks.arguments import converted
from lightning_cl.callbacks.prompts.prompt_method import PromptMethod, checked_layers
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.nn.coda_prompt import CODAPromptPool


@dataclass(eq=False)
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
        train_mask: Which classes compete in the training loss; the paper's is ``"task"``.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first; the paper does.
        cache_queries: Compute the query of an evaluation image once per run.
        cache_training_queries: Compute the query of a training image once a task, where images are not augmented.
    """

    state_key: ClassVar[str] = "lightning_cl.CODAPrompt"
    boundaries: ClassVar[Boundaries] = "taken"
    small: ClassVar[dict[str, Any]] = {"pool_size": 9, "prompt_length": 4, "layers": (0, 1), "ortho_weight": 0.1}

    pool_size: int = 100
    prompt_length: int = 8
    layers: Sequence[int] = converted(checked_layers, default=(0, 1, 2, 3, 4))
    ortho_weight: float = 0.0
    init: Literal["qr", "gram_schmidt"] = "qr"

    @property
    def adds_loss(self) -> bool:  # type: ignore[override]
        """Whether there is a penalty."""
        return self.ortho_weight > 0

    def provider(self, info: StreamInfo, width: int, num_outputs: int) -> CODAPromptPool:
        """The pool; see :class:`~lightning_cl.nn.CODAPromptPool`."""
        per_task = self.pool_size // info.planned_tasks
        pool_size = max(self.pool_size, per_task * info.num_tasks)  # more than planned for when the stream was extended
        return self.filled(CODAPromptPool, num_tasks=info.num_tasks, width=width, pool_size=pool_size)
