"""Gradient-based sample selection: a full memory takes what points elsewhere than what it holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from lightning_cl.nn.replay.policies import Policy


class GradientBased(Policy):
    """GSS-Greedy (Aljundi et al., NeurIPS 2019, arXiv:1903.08671), from scores that are made beside it.

    ``features`` are ``(B, 2)``: the highest cosine ``c`` of the sample's gradient with those of some batches of the
    memory, and that of the gradient of the whole batch, the same in all rows. While there is room, every item is taken.
    Then, if the batch's cosine is below ``threshold``, as many candidate slots as items are drawn without replacement,
    with weights ``(s - min s) / (max s - min s + 0.01)`` of the scores ``s`` that were stored; each item is paired with
    one and takes its slot with probability ``(s + 1) / ((c + 1) + (s + 1))``. Where too few slots have a weight, the
    items left over stay out; where none has one, as with equal scores, all are as likely. Items without scores stay
    out.

    Args:
        threshold: In [-1, 1].
    """

    name = "gradient_based"
    by_features = True
    bytes_per_slot = 8  # the score

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold
        self.scores = torch.zeros(0, dtype=torch.float64)  # by slot

    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """See :class:`Policy`; draws only where the batch finds the buffer full."""
        slots = torch.full_like(labels, -1)
        if features is None:
            return slots
        if len(self.scores) < len(held):
            self.scores = self.scores.new_zeros(len(held))
        features = features.double()
        free = (held < 0).nonzero().flatten()[: len(labels)]
        slots[: len(free)] = free
        self.scores[free] = features[: len(free), 0]
        late = features[len(free) :]
        if len(late) and float(late[0, 1]) < self.threshold:
            taken = self._replaced(late[:, 0], generator)
            slots[len(free) :] = taken
            self.scores[taken[taken >= 0]] = late[taken >= 0, 0]
        return slots

    def _replaced(self, new: Tensor, generator: Generator) -> Tensor:
        """``(n,)`` slots of items with these scores, -1: the stored item stays."""
        old, found = self.scores, torch.full((len(new),), -1)
        weights = candidate_weights(old)
        count = min(len(new), int((weights > 0).sum()))
        candidates = torch.multinomial(weights, count, generator=generator)
        toss = torch.rand(count, dtype=torch.float64, generator=generator)
        taken = toss < replacement_share(new[:count], old[candidates])
        found[:count] = torch.where(taken, candidates, -1)
        return found

    def state_dict(self) -> dict[str, Any]:
        """The stored scores."""
        return {"scores": self.scores.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.scores = state["scores"].cpu().clone()


def candidate_weights(scores: Tensor) -> Tensor:
    """``(M,)`` weights of the draw of candidates: 0 for the lowest score; 1 for all where all scores are equal."""
    low, high = scores.min(), scores.max()
    return torch.ones_like(scores) if low == high else (scores - low) / (high - low + 0.01)


def replacement_share(new: Tensor, old: Tensor) -> Tensor:
    """The probability that the new item takes the old one's slot, from their scores in [-1, 1]; 1/2 at (-1, -1)."""
    total = (new + 1) + (old + 1)
    return torch.where(total > 0, (old + 1) / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)
