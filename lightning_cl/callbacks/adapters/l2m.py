"""L2M: a pool of low-rank modulators, of which every sample takes the one whose key is nearest."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.adapters.linear_layers import linear_adapters
from lightning_cl.callbacks.arguments import at_least, pattern
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.adapters import Adapters, Mixture, PooledLoRA
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.matching import cosine_similarity, spread_scores
from lightning_cl.training import Step
from lightning_cl.training.query_pass import QueryingMethod


class ModulatorPool(QueryingMethod):
    """Keys, modulators, and how often each was chosen."""

    counts: Tensor

    def __init__(self, adapters: Adapters, mixture: Mixture, width: int, size: int, pull: float) -> None:
        super().__init__(adapters, mixture)
        self.pull = pull
        self.keys = nn.Parameter(torch.empty(size, width).uniform_(-1, 1))
        self.register_buffer("counts", torch.zeros(size, dtype=torch.long))
        self.spreads = Counter()  # a choice counts against being chosen again
        #: Of the samples of a training step: the modulators, and the cosines with their keys.
        self.chosen: tuple[Tensor, Tensor] | None = None

    def start_task(self, module: Any, task: Any) -> None:
        """From the second task on, and where nobody tells tasks, choices are spread."""
        self.spreads.set(int(task.index > 0 or task.order == "stream"))

    def choose(self, query: Tensor) -> None:
        """The modulator with the nearest key, or the best score while choices are spread in training."""
        similarity = cosine_similarity(query, self.keys)
        scores = similarity.detach()
        if self.training and self.spreads.value:
            scores = spread_scores(scores, self.counts)
        ids = scores.argmax(1, keepdim=True)
        if self.training and similarity.requires_grad:
            self.chosen = ids[:, 0], similarity.gather(1, ids)[:, 0]
        self.mixture.set(ids, torch.ones_like(ids, dtype=query.dtype))

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Pull the chosen keys to their queries, and count them."""
        if self.chosen is None:
            return {}
        ids, nearness = self.chosen
        self.chosen = None
        self._count(step, ids)
        return {"pull": self.pull * step.mean_over(torch.ones_like(ids, dtype=torch.bool), 1 - nearness)}

    @torch.no_grad()
    def _count(self, step: Step, ids: Tensor) -> None:
        chosen = torch.zeros_like(self.counts).index_add_(0, ids, torch.ones_like(ids))
        self.counts += all_sum(chosen * step.counts)


@dataclass(eq=False)
class L2M(ContinualMethod):
    r"""Learning to modulate (L2M; Schmied et al., NeurIPS 2023, arXiv:2306.14884), on any network of linear layers.

    A pool of ``pool_size`` keys, each with a low-rank update ``B A`` of every chosen layer of a frozen network. A
    sample's query is what the network without updates gives its head, and the update of the key with the largest
    cosine is added for this sample alone. ``pull * (1 - cosine)`` of the chosen keys joins the loss; in training from
    the second task on keys are chosen by ``(cosine + 1) / 2`` times their inverse count of choices, normalised. Rank,
    scale ``alpha = 2 rank``, pool and start of the keys (uniform in [-1, 1]) are those of the released configuration,
    whose query is the mean of embedded states of a decision transformer; ``pull`` is of our own. Its (IA)^3 form is not
    here. Needs no boundaries and no memory; keeps the pool; a step costs one more pass without gradient, and so does
    an evaluation. Layers must have the samples first, each in one row, as in ViTs and language models.

    Args:
        pool_size: Keys and modulators, at least 1.
        rank: Rows of ``A``, at least 1.
        pull: Weight of the term for keys, at least 0.
        at: Regular expression of the ends of layers' names, such as ``r"(query|value)"``; ``None``: every
            ``nn.Linear`` within numbered blocks.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no layer has
            such a name, or one that has is no ``nn.Linear``.
    """

    state_key: ClassVar[str] = "lightning_cl.L2M"
    needs_forward: ClassVar[bool] = False
    adds_loss: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"pool_size": 4, "rank": 2}

    pool_size: int = at_least(1, default=30)
    rank: int = at_least(1, default=8)
    pull: float = at_least(0, default=1.0)
    at: str | None = pattern(default=None)
    _: KW_ONLY
    train_mask: TrainMask = "task"

    def build(self, pl_module: Any, info: Any) -> ModulatorPool:
        """Modulators that add nothing yet, and keys at random."""
        mixture, size, width = Mixture(), self.pool_size, pl_module.continual_head.in_features
        make = partial(PooledLoRA, mixture, size, rank=self.rank, scale=2.0)
        adapters = linear_adapters(pl_module, make, self.at, "L2M")
        part = ModulatorPool(adapters, mixture, width, size, self.pull)
        part.ask_before(pl_module)
        return part
