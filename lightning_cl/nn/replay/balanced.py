"""Class-balancing reservoir sampling: equal room for every class, and a reservoir within each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from lightning_cl.nn.replay.policies import Policy, occurrence


class ClassBalanced(Policy):
    """CBRS (Chrysakis & Moens, ICML 2020, algorithm 1): as many items of each class as the stream allows.

    Once the buffer is full, a class is *full* from the moment when no class holds more. An item of a class that is not
    full takes the slot of a random item of the largest classes. An item of a full class replaces a random item of its
    own class with probability ``held / seen``, so within a class it is a reservoir.
    """

    name = "class_balanced"

    def __init__(self) -> None:
        self.seen = torch.zeros(0, dtype=torch.long)  # by class
        self.full = torch.zeros(0, dtype=torch.bool)

    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """See :class:`Policy`; two draws for each item that finds the buffer full.

        Items of full classes change no count, so all of them up to the next item of another class are decided at once.
        """
        self._make_room(max(int(t.max()) + 1 for t in (labels, held) if len(t)))
        held, slots = held.clone(), torch.full_like(labels, -1)
        number = self.seen[labels] + occurrence(labels) + 1  # items of the class up to and including this one
        self.seen += torch.bincount(labels, minlength=len(self.seen))
        free = (held < 0).nonzero().flatten()[: len(labels)]
        slots[: len(free)] = free
        held[free] = labels[: len(free)]
        uniform = torch.rand(len(labels) - len(free), 2, dtype=torch.float64, generator=generator)
        if len(uniform) == 0:
            return slots
        late = slice(len(free), len(labels))
        slots[late] = self._when_full(labels[late], number[late], uniform, held)
        return slots

    def _when_full(self, labels: Tensor, number: Tensor, uniform: Tensor, held: Tensor) -> Tensor:
        """``(n,)`` slots of items that find the buffer full; ``held`` is changed along."""
        slots, counts = torch.full_like(labels, -1), torch.bincount(held, minlength=len(self.seen))
        start = 0
        while start < len(labels):
            largest = counts == counts.max()
            self.full |= largest
            waiting = (~self.full[labels[start:]]).nonzero().flatten()
            stop = start + int(waiting[0]) if len(waiting) else len(labels)
            if stop > start:
                rows = slice(start, stop)
                slots[rows] = _replace_own(labels[rows], number[rows], uniform[rows], held)
            if stop < len(labels):
                among = largest[held].nonzero().flatten()
                slot = among[int(uniform[stop, 0] * len(among))]
                counts[held[slot]] -= 1
                counts[labels[stop]] += 1
                slots[stop], held[slot] = slot, labels[stop]
            start = stop + 1
        return slots

    def _make_room(self, classes: int) -> None:
        missing = classes - len(self.seen)
        if missing > 0:
            self.seen = torch.cat([self.seen, self.seen.new_zeros(missing)])
            self.full = torch.cat([self.full, self.full.new_zeros(missing)])

    def state_dict(self) -> dict[str, Any]:
        """Items so far and fullness, by class."""
        return {"seen": self.seen.clone(), "full": self.full.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.seen, self.full = state["seen"].cpu().clone(), state["full"].cpu().clone()


def _replace_own(labels: Tensor, number: Tensor, uniform: Tensor, held: Tensor) -> Tensor:
    """``(n,)`` slots of items of full classes: one of their own class with probability ``held / seen``, or -1."""
    order = held.argsort(stable=True)
    sorted_held = held[order]
    first = torch.searchsorted(sorted_held, labels)
    count = torch.searchsorted(sorted_held, labels, right=True) - first
    chosen = order[(first + (uniform[:, 1] * count).long()).clamp(max=len(held) - 1)]
    return torch.where(uniform[:, 0] * number < count, chosen, -1)
