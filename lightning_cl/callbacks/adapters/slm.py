"""SLM: low-rank updates of earlier tasks are retrieved for every sample by keys, and mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.adapters.linear_layers import linear_adapters
from lightning_cl.callbacks.arguments import above, at_least, choice, pattern
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.adapters import Adapters, Mixture, PooledLoRA
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.training import TaskData
from lightning_cl.training.group_keys import fit_group_keys, group_similarity, retrieved
from lightning_cl.training.query_pass import QueryingMethod

Retrieval = Literal["sample", "batch"]


class UpdateStore(QueryingMethod):
    """Keys and updates of all tasks; those of the current one learn."""

    keys: Tensor

    def __init__(self, adapters: Adapters, mixture: Mixture, width: int, tasks: int, method: SLM) -> None:
        super().__init__(adapters, mixture)
        self.method, self.task = method, Counter()
        shape = tasks * method.per_task, method.groups, width // method.groups
        self.register_buffer("keys", torch.zeros(shape))
        self.growing = ("keys",)

    @property
    def own(self) -> range:
        """The slots of the current task."""
        return range(self.task.value * self.method.per_task, (self.task.value + 1) * self.method.per_task)

    def choose(self, query: Tensor) -> None:
        """Of the current task's updates while they learn, of all so far afterwards."""
        method, own = self.method, self.own
        first = own.start if self.training else 0
        similarity = group_similarity(query, self.keys[first : own.stop])
        if method.retrieval == "batch" and not self.training:
            similarity = similarity.mean(0, keepdim=True).expand(len(query), -1)
        ids, shares = retrieved(similarity, min(method.topk, similarity.shape[1]), method.temperature)
        self.mixture.set(ids + first, shares.to(query.dtype))

    def start_task(self, module: Any, task: Any) -> None:
        """Fit the keys of the task to its queries."""
        self.task.set(task.index)
        queries = TaskData(module, task).all_features(partial(self.query_of, module)).features.float()
        method, shape, seed = self.method, (self.method.per_task, *self.keys.shape[1:]), module.trainer.datamodule.seed
        topk, steps = min(method.topk, method.per_task), (method.key_epochs, method.key_lr, method.key_batch)
        fitted = fit_group_keys(queries, shape, topk, seed, task.index, *steps)
        self.keys[list(self.own)] = fitted.to(self.keys)
        send_from_first_process([self.keys])

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The updates of other tasks."""
        return self.adapters.protected(self.own)


@dataclass(eq=False)
class SLM(TaskwiseMethod):
    r"""Scalable language model (SLM; Peng et al., ICLR 2024, arXiv:2404.07470): updates retrieved for every input.

    Each task has ``per_task`` low-rank updates of the chosen layers of a frozen network, each with a key. Before a task
    its keys are fitted to the queries of its samples (AdamW on the negative mean of the ``topk`` cosines, in the mean
    over ``groups`` groups of channels); then the updates learn by the user's loss, mixed by ``softmax(cosine /
    temperature)`` of the ``topk``. Updates of other tasks stay bit for bit. When evaluated, each sample mixes the
    ``topk`` of all tasks so far, so nobody tells a task (the paper's joint adaptive re-parameterisation). Numbers are
    those of the released BERT runs (20 slots for 5 tasks, rank 12). Different here: the query is what the frozen
    network itself gives its head, and not that of a second encoder; ``A`` starts as a linear layer's; keys have no
    dropout. The released code retrieves once for all samples of a batch, also when tested, which ``retrieval="batch"``
    repeats: answers then depend on what else is in the batch. Needs task starts, with a pass over the task; no memory;
    a step costs one more pass without gradient, and so does an evaluation. Layers must have the samples first, each in
    one row.

    Args:
        per_task: Updates of a task, at least 1.
        topk: How many are mixed for a sample, at least 1.
        rank: Rows of ``A``, at least 1.
        groups: Of the query's channels, at least 1; channels that fill no group are left out.
        temperature: Of the shares, above 0.
        retrieval: By the ``"sample"``, or once for a ``"batch"`` that is evaluated.
        key_epochs: Of fitting keys, at least 0.
        key_lr: Learning rate of keys, above 0.
        key_batch: Samples in a step of the keys, at least 1.
        at: Regular expression of the ends of layers' names, such as ``r"attention\.output\.dense"``, the paper's for
            BERT; ``None``: every ``nn.Linear`` within numbered blocks.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no layer has
            such a name, one that has is no ``nn.Linear``, or there are more groups than channels; in ``setup``, on a
            stream of one ordered pass.
    """

    state_key: ClassVar[str] = "lightning_cl.SLM"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = ("takes the next updates", "`L2M`, which needs none")
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"per_task": 2, "topk": 2, "rank": 2, "groups": 2}

    per_task: int = at_least(1, default=4)
    topk: int = at_least(1, default=4)
    rank: int = at_least(1, default=12)
    groups: int = at_least(1, default=6)
    temperature: float = above(0, default=0.1)
    retrieval: Retrieval = choice(Retrieval, default="sample")
    key_epochs: int = at_least(0, default=3)
    key_lr: float = above(0, default=1e-3)
    key_batch: int = at_least(1, default=4)
    at: str | None = pattern(default=None)

    def build(self, pl_module: Any, info: Any) -> UpdateStore:
        """Updates that add nothing yet, and no key."""
        mixture, width, slots = Mixture(), pl_module.continual_head.in_features, info.num_tasks * self.per_task
        if self.groups > width:
            raise ValueError(f"`groups` is {self.groups}, but features have {width} channels; give at most as many.")
        make = partial(PooledLoRA, mixture, slots, rank=self.rank)
        adapters = linear_adapters(pl_module, make, self.at, "SLM")
        part = UpdateStore(adapters, mixture, width, info.num_tasks, self)
        part.ask_before(pl_module)
        return part
