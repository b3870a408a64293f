"""The one interface of all prompt methods: from a query to prefixes, extra tokens and a loss term."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_cl.nn.feature_cache import FeatureCache
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.nn.prefix_attention import Prefix


@dataclass
class Prompts:
    """What a provider makes of a batch.

    Attributes:
        prefixes: Extra key and value rows by layer (prefix tuning).
        tokens: ``(B or 1, L, D)`` tokens that join the sequence before block 0 (prompt tuning); ``None``: none.
        loss: Scalar that is added to the training loss; ``None``: none.
        pool_tokens: Classify the mean of the tokens' outputs instead of the class token.
        appended: ``(B or 1, L, D)`` tokens by layer that join the end of the sequence before that block, without a
            positional embedding, and are cut off after it (deep prompt tuning).
    """

    prefixes: Mapping[int, Prefix] = field(default_factory=dict)
    tokens: Tensor | None = None
    loss: Tensor | None = None
    pool_tokens: bool = False
    appended: Mapping[int, Tensor] = field(default_factory=dict)


class PromptProvider(nn.Module):
    """Parameters and mathematics of a prompt method; knows nothing of ViTs, Trainers or batches.

    The task counter is a buffer, so it is in every checkpoint; :attr:`task` mirrors it without a host sync.

    Attributes:
        layers: Zero-based indices of the layers that get a prefix or appended tokens.
        needs_query: Whether :meth:`forward` needs the frozen network's feature of the image.
        query_layer: Zero-based index (negative: from the end) of the block after which the class token is the query,
            without the final norm; ``None``: the query is what the head would classify.
        batch_dependent: Whether a prediction depends on the other samples of its batch.
        pool_tokens: Whether the head classifies the mean of the prompt tokens' outputs, see :class:`Prompts`.
        growing: Own parameters and buffers with rows for each task, which get more rows (along dimension 0) when the
            stream is extended; new rows are as the constructor makes them.
        uses_tokens: Whether prompts are tokens that join the sequence, and not prefixes alone.
        learns_apart: Own parameters that learn even where the prompts have no effect on the features, such as keys
            from the term that pulls them.
    """

    growing: tuple[str, ...] = ()
    learns_apart: tuple[str, ...] = ("keys", "mask")
    layers: tuple[int, ...] = ()
    needs_query: bool = True
    query_layer: int | None = None
    batch_dependent: bool = False
    pool_tokens: bool = False
    uses_tokens: bool = False
    task_counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("task_counter", torch.tensor(-1))
        self.task = -1
        after_load(self, "_read_task")
        #: Loss terms of the current step's forward passes, until the step collects them.
        self.pending_losses: list[Tensor] = []
        #: Queries of training images, for somebody who announces these; ``None``: they are computed in every step.
        self.training_queries: FeatureCache | None = None

    def _read_task(self) -> None:
        self.task = int(self.task_counter)

    def start_task(self, task: int) -> None:
        """Prepare the parameters of ``task`` in place; overriding methods call ``super()`` first."""
        self.task = task
        self.task_counter.fill_(task)

    def query(self, compute: Callable[[Tensor | None], Tensor], images: Tensor, evaluated: FeatureCache) -> Tensor:
        """``(B, D)`` queries of images, from memory where they were announced and are known.

        Args:
            compute: Computes them (given the rows to compute, or all).
            images: ``(B, ...)`` what the network is given.
            evaluated: Queries of evaluation images.
        """
        if not self.training:
            return evaluated.get(compute, images)
        return compute(None) if self.training_queries is None else self.training_queries.look_up(compute, images)

    def forward(self, query: Tensor | None) -> Prompts:
        """Prompts for a batch.

        Args:
            query: ``(B, D)`` feature of the un-prompted frozen network, or ``None`` when not needed.
        """
        raise NotImplementedError

    def used_keys(self) -> Tensor | None:
        """``(N, D)`` keys that the last training pass chose, with their gradient; ``None``: there are none."""
        return None

    def first_layer(self, depth: int) -> int:
        """The first of ``depth`` blocks that prompts enter, or from which on the query goes its own way."""
        layers = self.layers if self.query_layer is None else (*self.layers, self.query_layer % depth)
        return min(layers, default=0)

    def check_layers(self, depth: int) -> None:
        """Refuse a network of ``depth`` blocks that the layers do not fit.

        Raises:
            ValueError: If a layer (that of the query, too) is beyond the depth.
        """
        beyond = [layer for layer in self.layers if not 0 <= layer < depth]
        if beyond:
            raise ValueError(
                f"prompt layers {beyond} do not exist: the ViT has {depth} blocks, 0 to {depth - 1}; choose layers "
                "among these."
            )
        if self.query_layer is not None and not -depth <= self.query_layer < depth:
            raise ValueError(
                f"the query is to be read after block {self.query_layer}, but the ViT has {depth} block(s), 0 to "
                f"{depth - 1}; use a deeper ViT, or read the query elsewhere."
            )

    def protected_rows(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Parameters with the rows (along dimension 0) that must not move in the current task."""
        yield from ()
