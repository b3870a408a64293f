"""DualPrompt (arXiv:2204.04799): a general prefix for all tasks and an expert prefix per task, found by its key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.l2p import BatchVote
from lightning_cl.nn.matching import cosine_similarity, vote
from lightning_cl.nn.prefix_attention import Prefix
from lightning_cl.nn.prompts import PromptProvider, Prompts


class DualPromptPool(PromptProvider):
    """General prefixes ``G``, expert prefixes ``E`` and task keys.

    In training the expert of the current task is used for all samples, and its key is pulled to their queries. At
    test time each image takes the expert whose key is nearest, among the tasks learned so far. ``G`` is trained on all
    tasks and never protected; experts and keys of other tasks do not move.

    Args:
        num_tasks: Tasks of the stream.
        width: Width ``D`` of the ViT.
        general_length: Rows of ``G`` per layer, for the keys and again for the values.
        expert_length: Rows of ``E`` per layer, for the keys and again for the values.
        general_layers: Zero-based layers of ``G``.
        expert_layers: Zero-based layers of ``E``.
        pool_size: Experts; by default one per task.
        pull_weight: Weight of ``mean(1 - cos(query, key))``.
        shared_keys: One key per task for all expert layers (as in the paper); else one per task and layer.
        copy_previous: Start a task's expert from the previous task's (not its key).
        batch_vote: Choose the expert by a vote over the batch: for reproduction only, since predictions then depend
            on the batch. In training the task decides, so ``"train"`` changes nothing.
        init_range: Uniform range of the initial prefixes and keys.

    Raises:
        ValueError: If a layer is both general and expert, a length is below 1, or there are more tasks than experts.
    """

    growing = ("experts", "keys")

    def __init__(
        self,
        num_tasks: int,
        width: int,
        general_length: int = 5,
        expert_length: int = 20,
        general_layers: Sequence[int] = (0, 1),
        expert_layers: Sequence[int] = (2, 3, 4),
        pool_size: int | None = None,
        pull_weight: float = 1.0,
        shared_keys: bool = True,
        copy_previous: bool = True,
        batch_vote: BatchVote = "never",
        init_range: tuple[float, float] = (0.0, 0.01),
    ) -> None:
        super().__init__()
        both = sorted(set(general_layers) & set(expert_layers))
        if both:
            raise ValueError(f"layers {both} are both general and expert; give every layer one kind of prefix.")
        if general_length < 1 or expert_length < 1:
            raise ValueError(
                f"`general_length` is {general_length} and `expert_length` is {expert_length}; both are rows per layer "
                "and at least 1 (leave `general_layers` or `expert_layers` empty to do without)."
            )
        experts = num_tasks if pool_size is None else pool_size
        if num_tasks > experts:
            raise ValueError(
                f"the stream has {num_tasks} tasks but the pool only {experts} experts; set `pool_size` to at least "
                f"{num_tasks}, or leave it unset."
            )
        self.general_layers, self.expert_layers = tuple(general_layers), tuple(expert_layers)
        self.layers = (*self.general_layers, *self.expert_layers)
        self.pull_weight, self.copy_previous, self.batch_vote = pull_weight, copy_previous, batch_vote
        self.batch_dependent = batch_vote == "always"
        key_sets = 1 if shared_keys else max(len(self.expert_layers), 1)
        self.general = nn.Parameter(torch.empty(len(self.general_layers), 2, general_length, width))
        # Expert first, so that a task's expert is a row of dimension 0 for the guard.
        self.experts = nn.Parameter(torch.empty(experts, len(self.expert_layers), 2, expert_length, width))
        self.keys = nn.Parameter(torch.empty(experts, key_sets, width))
        with torch.no_grad():
            for parameter in (self.general, self.experts, self.keys):
                parameter.uniform_(*init_range)
        # What takes no part in the loss must not wait for a gradient, as DDP would.
        self.general.requires_grad_(bool(self.general_layers))
        self.experts.requires_grad_(bool(self.expert_layers))
        self.keys.requires_grad_(bool(self.expert_layers) and pull_weight != 0)

    def start_task(self, task: int) -> None:
        """Copy the previous task's expert, in place; old experts stay as they are."""
        if task >= len(self.experts):
            raise ValueError(
                f"the pool was built for {len(self.experts)} tasks, but task {task} starts; attach the method to a "
                f"fresh module on this stream, or set `pool_size` to at least {task + 1}."
            )
        super().start_task(task)
        if self.copy_previous and task > 0:
            with torch.no_grad():
                self.experts[task] = self.experts[task - 1].clone()

    def used_keys(self) -> Tensor | None:
        """``(key sets, D)`` keys of the current task, which all samples use in training."""
        return self.keys[self.task] if self.task >= 0 and self.expert_layers else None

    def protected_rows(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Experts and keys of all other tasks."""
        if self.task < 0:
            return
        yield from (all_rows_but(parameter, self.task) for parameter in (self.experts, self.keys))

    def forward(self, query: Tensor | None) -> Prompts:
        """``(B, D)`` queries to one prefix per layer, and in training the pull term of the current task's key."""
        assert query is not None
        prefixes = {
            layer: Prefix(self.general[i, :1], self.general[i, 1:]) for i, layer in enumerate(self.general_layers)
        }
        if self.task < 0 or not self.expert_layers:
            return Prompts(prefixes)
        if self.training:
            loss = self._pull(query) if self.pull_weight else None
            expert = self.experts[self.task]
            prefixes |= {layer: Prefix(expert[i, :1], expert[i, 1:]) for i, layer in enumerate(self.expert_layers)}
            return Prompts(prefixes, loss=loss)
        ids = self.nearest(query)
        for index, layer in enumerate(self.expert_layers):
            chosen = self.experts[ids[min(index, len(ids) - 1)], index]  # (B, 2, L, D)
            prefixes[layer] = Prefix(chosen[:, 0], chosen[:, 1])
        return Prompts(prefixes)

    def nearest(self, query: Tensor) -> Tensor:
        """``(key sets, B)`` ids of the nearest keys among the tasks learned so far."""
        similarity = cosine_similarity(query, self.keys[: self.task + 1].transpose(0, 1))
        ids = similarity.argmax(dim=-1)
        if self.batch_dependent:
            winners = [vote(row[:, None], len(self.keys), 1).expand(len(row)) for row in ids]
            ids = torch.stack(winners)
        return ids

    def _pull(self, query: Tensor) -> Tensor:
        similarity = cosine_similarity(query, self.keys[self.task])  # (B, key sets)
        return self.pull_weight * (1 - similarity).mean()

    def extra_repr(self) -> str:
        """Sizes."""
        return (
            f"{len(self.experts)} experts of {self.experts.shape[3]} rows in layers {list(self.expert_layers)}, "
            f"general prefix of {self.general.shape[2]} rows in layers {list(self.general_layers)}"
        )
