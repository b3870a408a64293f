"""L2P (arXiv:2112.08654): a pool of keyed prompts, of which each image picks the nearest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cl.nn.distributed import global_count
from lightning_cl.nn.matching import cosine_similarity, pull_similarity, vote
from lightning_cl.nn.prefix_attention import Prefix
from lightning_cl.nn.prompts import PromptProvider, Prompts

#: When prompts are chosen by a vote of the batch instead of for each image.
BatchVote = Literal["never", "train", "always"]


class L2PPool(PromptProvider):
    """Keys and prompts; the ``top_k`` prompts whose keys are nearest to the query are used.

    ``form="tokens"`` is L2P: selected prompts join the sequence before block 0 and the head classifies the mean of
    their outputs. ``form="prefix"`` is the L2P++ of CODA-Prompt (arXiv:2211.13218): selected prompts are prefixes,
    the first half keys and the second half values, in each of ``layers`` with keys of its own (several layers: Deep
    L2P++), and the class token is classified.

    Args:
        num_tasks: Tasks of the stream; only the task mask needs it.
        width: Width ``D`` of the ViT.
        pool_size: Prompts, ``M``.
        prompt_length: Rows per prompt, ``L``.
        top_k: Prompts per image, ``k``.
        pull_weight: Weight of the term that pulls selected keys to the queries that selected them.
        pull_reduction: Mean or sum over the global batch; layers are summed. The released L2P++ sums, and indexes its
            similarities wrongly: there each query is paired with the keys of every sample. Here a query is paired with
            the keys that it selected, in both cases.
        form: Prompt tuning or prefix tuning.
        layers: Zero-based layers of the prefixes; plays no part for tokens.
        batch_vote: Choose by a vote over the batch: for reproduction only, since with ``"always"`` predictions
            depend on the batch.
        task_mask: In training, task ``t`` uses prompts ``[t * k, (t + 1) * k)`` whatever the keys say.
        copy_previous: With the task mask, start a task's prompts from the previous task's.
        init_range: Uniform range of the initial prompts and keys.

    Raises:
        ValueError: If the pool is smaller than ``top_k`` or than the task mask needs, ``prompt_length`` does not fit
            the form, or ``copy_previous`` is set without the task mask.
    """

    def __init__(
        self,
        num_tasks: int,
        width: int,
        pool_size: int = 10,
        prompt_length: int = 10,
        top_k: int = 4,
        pull_weight: float = 1.0,
        pull_reduction: Literal["mean", "sum"] = "mean",
        form: Literal["tokens", "prefix"] = "tokens",
        layers: Sequence[int] = (0,),
        batch_vote: BatchVote = "never",
        task_mask: bool = False,
        copy_previous: bool = False,
        init_range: tuple[float, float] = (0.0, 0.01),
    ) -> None:
        super().__init__()
        _check(num_tasks, pool_size, prompt_length, top_k, form, task_mask)
        if copy_previous and not task_mask:
            raise ValueError(
                "`copy_previous` copies into the slots that `task_mask` gives a task; set `task_mask=True`."
            )
        self.layers = tuple(layers) if form == "prefix" else ()
        self.num_tasks, self.top_k, self.form = num_tasks, top_k, form
        self.pull_weight, self.pull_reduction, self.batch_vote = pull_weight, pull_reduction, batch_vote
        self.task_mask, self.copy_previous = task_mask, copy_previous
        self.growing = ("prompts", "keys") if task_mask else ()  # else all tasks share the pool
        self.batch_dependent, self.pool_tokens = batch_vote == "always", form == "tokens"
        self.uses_tokens = self.pool_tokens
        sets = max(len(self.layers), 1)
        self._used: list[Tensor] = []
        # Prompt first, so that a task's slots are rows of dimension 0 for the guard.
        self.prompts = nn.Parameter(torch.empty(pool_size, sets, prompt_length, width).uniform_(*init_range))
        keys = torch.empty(pool_size, sets, width).uniform_(*init_range)
        self.keys = nn.Parameter(keys, requires_grad=pull_weight != 0)  # they learn from the pull term alone

    @property
    def slots(self) -> slice:
        """Prompts of the current task under the task mask."""
        return slice(self.task * self.top_k, (self.task + 1) * self.top_k)

    def start_task(self, task: int) -> None:
        """With ``copy_previous``, copy the previous task's prompts (not its keys) into the new slots."""
        super().start_task(task)
        if self.task_mask and self.slots.stop > len(self.prompts):
            raise ValueError(
                f"task {task} needs prompts {self.slots.start} to {self.slots.stop - 1}, but the pool has "
                f"{len(self.prompts)}; set `pool_size` to at least {self.slots.stop}."
            )
        if self.task_mask and self.copy_previous and task > 0:
            with torch.no_grad():
                self.prompts[self.slots] = self.prompts[self.slots.start - self.top_k : self.slots.start].clone()

    def used_keys(self) -> Tensor | None:
        """``(N, D)`` keys of the prompts that each sample of the last training pass chose."""
        chosen = [self.keys[ids, place].flatten(0, -2) for place, ids in enumerate(self._used)]
        return torch.cat(chosen) if chosen else None

    def protected_rows(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Protect all prompts and keys of other tasks under the task mask; else the whole pool learns on."""
        if self.task_mask and self.task >= 0:
            rows = torch.arange(len(self.prompts))
            frozen = rows[(rows < self.slots.start) | (rows >= self.slots.stop)]
            yield self.prompts, frozen
            yield self.keys, frozen

    def select(self, similarity: Tensor) -> Tensor:
        """Ids of the used prompts from ``(B, M)`` similarities: ``(B, k)``, or ``(k,)`` when all samples share them."""
        if self.training and self.task_mask:
            return torch.arange(self.slots.start, self.slots.stop, device=similarity.device)
        ids = similarity.topk(self.top_k, dim=1).indices
        voted = self.batch_vote == "always" or (self.batch_vote == "train" and self.training)
        return vote(ids, len(self.keys), self.top_k) if voted else ids

    def forward(self, query: Tensor | None) -> Prompts:
        """``(B, D)`` queries to tokens or prefixes, and in training the pull term."""
        assert query is not None
        similarity = cosine_similarity(query, self.keys.transpose(0, 1))  # (sets, B, M)
        ids = [self.select(s.detach()) for s in similarity]
        self._used = ids if self.training else []
        loss = self._pull(similarity, ids) if self.training and self.pull_weight else None
        if self.form == "tokens":
            return Prompts(tokens=self._rows(ids[0], 0), loss=loss, pool_tokens=self.pool_tokens)
        prefixes = {}
        for index, layer in enumerate(self.layers):
            half = self.prompts.shape[2] // 2
            rows = self.prompts[ids[index], index]
            rows = rows if rows.ndim == 4 else rows.unsqueeze(0)  # (B or 1, k, L, D)
            prefixes[layer] = Prefix(rows[:, :, :half].flatten(1, 2), rows[:, :, half:].flatten(1, 2))
        return Prompts(prefixes, loss=loss)

    def _rows(self, ids: Tensor, index: int) -> Tensor:
        """``(B or 1, k * L, D)`` rows of the selected prompts."""
        rows = self.prompts[ids, index]
        return rows.flatten(-3, -2) if rows.ndim == 4 else rows.flatten(0, 1).unsqueeze(0)

    def _pull(self, similarity: Tensor, ids: list[Tensor]) -> Tensor:
        total = torch.stack([pull_similarity(s, i) for s, i in zip(similarity, ids, strict=True)]).sum()
        if self.form == "prefix":  # written as a distance there: sum of 1 - cos
            total = total - self.top_k * len(ids)
        if self.pull_reduction == "sum":
            total = total * global_count(similarity.shape[1], similarity.device)
        return -self.pull_weight * total

    def extra_repr(self) -> str:
        """Sizes and options."""
        pool, _, length, width = self.prompts.shape
        return (
            f"{pool} prompts of {length} x {width}, top_k={self.top_k}, form={self.form!r}, layers={list(self.layers)}"
        )


def _check(num_tasks: int, pool_size: int, prompt_length: int, top_k: int, form: str, task_mask: bool) -> None:
    if top_k < 1 or pool_size < top_k:
        raise ValueError(
            f"`top_k` is {top_k} but the pool has {pool_size} prompts; use at most {pool_size}, at least 1."
        )
    if prompt_length < 1 or (form == "prefix" and prompt_length % 2):
        raise ValueError(
            f"`prompt_length` is {prompt_length}; give at least 1 token, and for prefixes an even number: half of the "
            "rows are keys and half values."
        )
    if task_mask and num_tasks * top_k > pool_size:
        raise ValueError(
            f"the task mask needs {num_tasks} tasks x {top_k} prompts = {num_tasks * top_k}, but the pool has "
            f"{pool_size}; raise `pool_size`, lower `top_k`, or set `task_mask=False`."
        )
