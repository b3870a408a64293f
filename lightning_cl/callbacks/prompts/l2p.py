"""L2P, L2P++ and Deep L2P++ as a drop-in callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightning_cl.callbacks.arguments import converted
from lightning_cl.callbacks.prompts.prompt_method import PromptMethod, checked_layers
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.nn.l2p import BatchVote, L2PPool


@dataclass(eq=False)
class L2P(PromptMethod):
    """L2P: learning to prompt (Wang et al., CVPR 2022, arXiv:2112.08654).

    A small pool of keyed prompts is shared by all tasks; each image picks the ``top_k`` prompts whose keys are nearest
    to the frozen network's feature and prepends them as tokens. Nothing is protected: pool, keys and head learn on.
    ``form="prefix"`` with ``pool_size=30, prompt_length=20, top_k=5, init_range=(0, 1)`` is L2P++ (layer 0) or Deep
    L2P++ (``layers=[0, 1, 2, 3, 4]``) of the CODA-Prompt paper. The code released with it sums the pull term over the
    batch (``pull_reduction="sum"``; the default here is the mean), and pairs each query with the keys that all samples
    of the batch selected; here a query is paired with its own.

    Args:
        pool_size: Prompts in the pool.
        prompt_length: Tokens per prompt; for prefixes half of the rows are keys and half values.
        top_k: Prompts per image.
        pull_weight: Weight of the term that pulls selected keys to their queries.
        pull_reduction: Mean or sum of the pull term over the batch.
        form: ``"tokens"`` (L2P) or ``"prefix"`` (L2P++).
        layers: Zero-based layers of the prefixes; plays no part for tokens.
        batch_vote: Choose prompts by a vote over the batch, in training or always. For reproduction only: with
            ``"always"`` predictions depend on the batch, and the report says so.
        task_mask: In training, task ``t`` uses prompts ``[t * k, (t + 1) * k)``.
        copy_previous: With the task mask, start a task's prompts from the previous task's.
        init_range: Uniform range of the initial prompts and keys.
        train_mask: Which classes compete in the training loss; the paper's is ``"task"``.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first; the paper does.
        cache_queries: Compute the query of an evaluation image once per run.
        cache_training_queries: Compute the query of a training image once a task, where images are not augmented.
    """

    state_key: ClassVar[str] = "lightning_cl.L2P"
    small: ClassVar[dict[str, Any]] = {"pool_size": 6, "prompt_length": 2, "top_k": 2}

    pool_size: int = 10
    prompt_length: int = 10
    top_k: int = 4
    pull_weight: float = 1.0
    pull_reduction: Literal["mean", "sum"] = "mean"
    form: Literal["tokens", "prefix"] = "tokens"
    layers: Sequence[int] = converted(checked_layers, default=(0,))
    batch_vote: BatchVote = "never"
    task_mask: bool = False
    copy_previous: bool = False
    init_range: tuple[float, float] = (0.0, 0.01)

    @property
    def adds_loss(self) -> bool:  # type: ignore[override]
        """Whether keys are pulled to their queries."""
        return self.pull_weight != 0

    def provider(self, info: StreamInfo, width: int, num_outputs: int) -> L2PPool:
        """The pool; see :class:`~lightning_cl.nn.L2PPool`."""
        return self.filled(L2PPool, num_tasks=info.num_tasks, width=width)
