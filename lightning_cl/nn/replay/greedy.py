"""Greedy class-balanced sampling: the first items of every class, in equal shares of what is seen so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from lightning_cl.nn.replay.policies import Policy


class GreedyBalanced(Policy):
    """The sampler of GDumb (Prabhu et al., ECCV 2020, algorithm 1), with whole shares.

    An item stays if its class holds fewer than ``max(1, capacity // classes seen)``; in a full buffer it takes the slot
    of a random item of the largest class (of the lowest class id among equals).
    """

    name = "greedy"

    def __init__(self) -> None:
        self.seen = torch.zeros(0, dtype=torch.bool)  # by class

    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """See :class:`Policy`; one draw for each item that takes another's slot."""
        top = max([-1, *(int(t.max()) for t in (labels, held) if len(t))])
        self.seen = torch.cat([self.seen, torch.zeros(max(0, top + 1 - len(self.seen)), dtype=torch.bool)])
        held, slots = held.clone(), torch.full_like(labels, -1)
        counts = torch.bincount(held[held >= 0], minlength=len(self.seen)).tolist()
        classes, free = int(self.seen.sum()), (held < 0).nonzero().flatten().tolist()[::-1]
        for row, label in enumerate(labels.tolist()):
            if not self.seen[label]:
                self.seen[label], classes = True, classes + 1
            if counts[label] >= max(1, len(held) // classes):
                continue
            slot = free.pop() if free else self._taken(held, counts, generator)
            held[slot], slots[row] = label, slot
            counts[label] += 1
        return slots

    @staticmethod
    def _taken(held: Tensor, counts: list[int], generator: Generator) -> int:
        """A random slot of the largest class, which gives it away."""
        largest = counts.index(max(counts))
        counts[largest] -= 1
        members = (held == largest).nonzero().flatten()
        return int(members[int(torch.randint(len(members), (), generator=generator))])

    def state_dict(self) -> dict[str, Any]:
        """Which classes were seen."""
        return {"seen": self.seen.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.seen = state["seen"].cpu().clone()
