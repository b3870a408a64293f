"""DualPrompt as a drop-in callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.prompts.prompt_method import PromptMethod, checked_layers
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.nn.dual_prompt import DualPromptPool
from lightning_cl.nn.l2p import BatchVote


@dataclass(eq=False)
class DualPrompt(PromptMethod):
    """DualPrompt: complementary prompting (Wang et al., ECCV 2022, arXiv:2204.04799).

    A general prefix in the first layers learns on all tasks; in later layers each task has an expert prefix, which an
    image finds at test time by the nearest task key. Prefixes are permuted, not reshaped, into keys and values, so a
    prediction never depends on batch mates. An evaluation searches the keys of tasks that have begun; the released code
    also searches those not trained yet, so its average incremental accuracy differs, its last one does not.

    Args:
        general_length: Rows of the general prefix per layer, for the keys and again for the values.
        expert_length: Rows of an expert prefix per layer, for the keys and again for the values.
        general_layers: Zero-based layers of the general prefix.
        expert_layers: Zero-based layers of the expert prefixes.
        pool_size: Experts; by default one per task.
        pull_weight: Weight of the term that pulls the task's key to its queries.
        shared_keys: One key per task for all expert layers; else one per task and layer.
        copy_previous: Start a task's expert from the previous task's.
        batch_vote: Choose experts by a vote over the batch. For reproduction only: with ``"always"`` predictions
            depend on the batch, and the report says so.
        init_range: Uniform range of the initial prefixes and keys.
        train_mask: Which classes compete in the training loss; the paper's is ``"task"``.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first; the paper does.
        cache_queries: Compute the query of an evaluation image once per run.
        cache_training_queries: Compute the query of a training image once a task, where images are not augmented.
    """

    state_key: ClassVar[str] = "lightning_cl.DualPrompt"
    boundaries: ClassVar[Boundaries] = "taken"
    small: ClassVar[dict[str, Any]] = {
        "general_length": 2,
        "expert_length": 4,
        "general_layers": (0,),
        "expert_layers": (1,),
    }

    general_length: int = 5
    expert_length: int = 20
    general_layers: Sequence[int] = (0, 1)
    expert_layers: Sequence[int] = (2, 3, 4)
    pool_size: int | None = None
    pull_weight: float = 1.0
    shared_keys: bool = True
    copy_previous: bool = True
    batch_vote: BatchVote = "never"
    init_range: tuple[float, float] = (0.0, 0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_layers((*self.general_layers, *self.expert_layers))
        self.general_layers, self.expert_layers = tuple(self.general_layers), tuple(self.expert_layers)

    @property
    def adds_loss(self) -> bool:  # type: ignore[override]
        """Whether the task's key is pulled to its queries."""
        return self.pull_weight != 0

    def provider(self, info: StreamInfo, width: int, num_outputs: int) -> DualPromptPool:
        """The pool; see :class:`~lightning_cl.nn.DualPromptPool`."""
        return self.filled(DualPromptPool, num_tasks=info.num_tasks, width=width)
