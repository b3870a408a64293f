"""MVP (arXiv:2308.09303): a pool of prompts with keys, usage counters and learned masks on the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.matching import cosine_similarity
from lightning_cl.nn.mvp_losses import CVPTReduction, broadcast_key_loss, contrastive_key_loss
from lightning_cl.nn.precision import wide
from lightning_cl.nn.prompts import PromptProvider, Prompts


class MVPPool(PromptProvider):
    """General prompts for all images, and for each image the expert prompt and the logit mask that its query selects.

    The query selects the entry with the smallest ``(1 - cos(query, key)) * (usage + 1)``: entries that were used often
    stand back, in training and at test time alike, so the counters are part of the state. Task boundaries play no part.
    Prompts are tokens that are appended before a block and cut off after it. The keys learn from the prompt loss alone,
    the selected expert and mask from the classification.

    Args:
        num_outputs: Outputs of the head, ``C``.
        width: Width ``D`` of the ViT.
        pool_size: Entries, ``P``.
        general_length: Tokens of the general prompt per layer; 0: none.
        expert_length: Tokens of an expert prompt per layer; 0: none.
        general_layers: Zero-based layers of the general prompt.
        expert_layers: Zero-based layers of the expert prompts.
        use_mask: Learn a mask for every entry.
        use_contrastive: Weigh the selection with the counters and train the keys contrastively; else select by distance
            and train the keys with the mean distance ``1 - cos`` to their queries.
        cvpt_weight: Weight of the prompt loss.
        cvpt_reduction: ``"sample"``: the mean of the samples' losses (the paper). ``"broadcast"``: the public code's,
            see :func:`~lightning_cl.nn.mvp_losses.broadcast_key_loss`.
        use_last_layer: Read the query after the last block, not after the last but one.

    Raises:
        ValueError: If a layer is both general and expert, the pool is empty, or a length is negative.
    """

    growing = ("mask",)
    uses_tokens = True
    usage: Tensor

    def __init__(
        self,
        num_outputs: int,
        width: int,
        pool_size: int = 10,
        general_length: int = 5,
        expert_length: int = 20,
        general_layers: Sequence[int] = (0, 1),
        expert_layers: Sequence[int] = (2, 3, 4),
        use_mask: bool = True,
        use_contrastive: bool = True,
        cvpt_weight: float = 1.0,
        cvpt_reduction: CVPTReduction = "sample",
        use_last_layer: bool = False,
    ) -> None:
        super().__init__()
        _check(pool_size, general_length, expert_length, general_layers, expert_layers)
        self.general_layers = tuple(general_layers) if general_length else ()
        self.expert_layers = tuple(expert_layers) if expert_length else ()
        self.layers = (*self.general_layers, *self.expert_layers)
        self.query_layer = -1 if use_last_layer else -2
        self.use_mask, self.use_contrastive = use_mask, use_contrastive
        self.cvpt_weight, self.cvpt_reduction = cvpt_weight, cvpt_reduction
        self.general = nn.Parameter(torch.randn(len(self.general_layers), 1, general_length, width))
        self.experts = nn.Parameter(torch.randn(pool_size, len(self.expert_layers), expert_length, width))
        self.keys = nn.Parameter(torch.randn(pool_size, width))
        self.mask = nn.Parameter(torch.full((pool_size, num_outputs), -1.0))
        self.register_buffer("usage", torch.zeros(pool_size, dtype=torch.long))
        # What takes no part in the loss must not wait for a gradient, as DDP would.
        self.general.requires_grad_(self.general.numel() > 0)
        self.experts.requires_grad_(self.experts.numel() > 0)
        self.keys.requires_grad_(cvpt_weight != 0)
        self.mask.requires_grad_(use_mask)
        #: Whether this process's samples are part of the global batch; ``False`` for one that only fills up.
        self.counted = True
        self._selected: Tensor | None = None
        self._uncounted: list[Tensor] = []

    # ------------------------------------------------------------------ selection

    @property
    def temperature(self) -> Tensor:
        """``(P,)`` how much more distant an entry seems because of its use; at least 1."""
        usage = self.usage.to(wide(self.keys).dtype)
        return usage + 1 if self.use_contrastive else torch.ones_like(usage)

    def forward(self, query: Tensor | None) -> Prompts:
        """``(B, D)`` queries to appended tokens, and in training the prompt loss."""
        assert query is not None
        keys, temperature = wide(self.keys), self.temperature
        distance = 1 - cosine_similarity(query, keys)  # (B, P)
        ids = (distance.detach() * temperature).argmin(dim=1)
        self._selected = ids
        loss = None
        if self.training:
            self._uncounted.append(ids)
            loss = self.cvpt_weight * self._loss(distance, keys, temperature, ids) if self.cvpt_weight else None
        appended = {layer: self.general[i] for i, layer in enumerate(self.general_layers)}
        if self.expert_layers:
            chosen = self.experts[ids]  # (B, layers, L, D)
            appended |= {layer: chosen[:, i] for i, layer in enumerate(self.expert_layers)}
        return Prompts(loss=loss, appended=appended)

    def _loss(self, distance: Tensor, keys: Tensor, temperature: Tensor, ids: Tensor) -> Tensor:
        if not self.use_contrastive:
            return distance.gather(1, ids[:, None]).mean()
        among = 1 - cosine_similarity(keys, keys)
        if self.cvpt_reduction == "sample":
            return contrastive_key_loss(distance, among, temperature, ids)
        return broadcast_key_loss(distance, among, temperature, ids, self._counts(ids), self.counted)

    def logit_scale(self, batch_size: int) -> Tensor:
        """``(B, C)`` factors ``2 * sigmoid(mask)`` in (0, 2) of the entries that the last pass selected; used up by it.

        Raises:
            ValueError: If there was no pass, or it was over another number of samples.
        """
        ids, self._selected = self._selected, None
        if ids is None or ids.shape[0] != batch_size:  # not len, which `torch.export` would take for a constant
            before = "no pass of the ViT came before" if ids is None else f"the ViT's last pass was over {len(ids)}"
            raise ValueError(
                f"the head was called with {batch_size} samples but {before}; MVP masks the logits of an image by what "
                "its pass through the ViT selected, so call the head once after each pass, with one feature per image, "
                "or set `use_mask=False`."
            )
        return 2 * wide(self.mask[ids]).sigmoid()

    # ------------------------------------------------------------------ counters

    def begin_step(self, counted: bool = True) -> None:
        """A training step begins: only selections made from here on are counted.

        Args:
            counted: See :attr:`counted`.
        """
        self.counted = counted
        self._uncounted.clear()

    def end_step(self) -> None:
        """Add the step's selections, of all processes, to the counters."""
        if self._uncounted:
            self.usage += self._counts(torch.cat(self._uncounted))
            self._uncounted.clear()

    def _counts(self, ids: Tensor) -> Tensor:
        """``(P,)`` how many samples selected each entry, over all processes."""
        ones = torch.full_like(ids, int(self.counted))
        return all_sum(torch.zeros_like(self.usage).index_add(0, ids, ones))

    def extra_repr(self) -> str:
        """Sizes."""
        return (
            f"{len(self.experts)} experts of {self.experts.shape[2]} tokens in layers {list(self.expert_layers)}, "
            f"general prompt of {self.general.shape[2]} tokens in layers {list(self.general_layers)}, "
            f"masks on {self.mask.shape[1]} logits"
        )


def _check(
    pool_size: int,
    general_length: int,
    expert_length: int,
    general_layers: Sequence[int],
    expert_layers: Sequence[int],
) -> None:
    both = sorted(set(general_layers) & set(expert_layers))
    if both:
        raise ValueError(f"layers {both} are both general and expert; give every layer one kind of prompt.")
    if pool_size < 1 or general_length < 0 or expert_length < 0:
        raise ValueError(
            f"`pool_size` is {pool_size}, `general_length` is {general_length} and `expert_length` is {expert_length}; "
            "give a pool of at least 1 and tokens per layer, 0 for no prompt of that kind."
        )
