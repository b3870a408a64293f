"""Sample-wise importance: the memory gives away what helped the others least."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from lightning_cl.nn.replay.policies import Policy


class SampleImportance(Policy):
    """The memory of CLIB (Koh et al., ICLR 2022, arXiv:2110.10031): every item stays, in the place of a useless one.

    In a full buffer an item takes the slot of the least important item of the largest class, the newcomer counted (of
    the lowest class id among equals). A new item is as important as its class on average, or as all items are.
    :meth:`refresh` tells what training on some items did to the losses of all.

    Args:
        momentum: Share of its importance that an item keeps when it is told anew, in [0, 1).

    Attributes:
        importance: ``(capacity,)`` float64, by slot.
        used: ``(capacity,)`` bool: items that were trained on since the last refresh.
        seen: Items so far.
        first: ``(C,)`` how many items came before the first of each class, -1: it has not come.
    """

    name = "importance"
    bytes_per_slot = 17  # importance, loss, and whether it was used

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self.importance = torch.zeros(0, dtype=torch.float64)
        self.loss = torch.zeros(0, dtype=torch.float64)  # at the last refresh; NaN: the item came since
        self.used = torch.zeros(0, dtype=torch.bool)
        self.first = torch.zeros(0, dtype=torch.long)
        self.seen = 0

    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """See :class:`Policy`; nothing is drawn."""
        self._make_room(len(held))
        held, slots = held.clone(), torch.full_like(labels, -1)
        self.first = self.first_arrivals(labels)
        self.seen += len(labels)
        for row, label in enumerate(labels.tolist()):
            free = (held < 0).nonzero().flatten()
            slot = int(free[0]) if len(free) else self._given_away(held, label)
            held[slot] = -1
            alike = held == label
            others = self.importance[alike if bool(alike.any()) else held >= 0]
            self.importance[slot] = others.mean() if len(others) else 0.0
            self.loss[slot], self.used[slot], held[slot], slots[row] = torch.nan, False, label, slot
        return slots

    def first_arrivals(self, labels: Tensor) -> Tensor:
        """``(C,)`` as :attr:`first`, once ``(B,)`` labels have come, too."""
        missing = max(int(labels.max()) + 1 if len(labels) else 0, len(self.first)) - len(self.first)
        first = torch.cat([self.first, self.first.new_full((missing,), -1)])
        for row, label in enumerate(labels.tolist()):
            if first[label] < 0:
                first[label] = self.seen + row
        return first

    def _given_away(self, held: Tensor, label: int) -> int:
        """The slot of the least important item of the largest class."""
        counts = torch.bincount(held, minlength=label + 1)
        present = counts > 0
        counts[label] += 1
        members = (held == counts.masked_fill(~present, -1).argmax()).nonzero().flatten()
        return int(members[self.importance[members].argmin()])

    def use(self, slots: Tensor) -> None:
        """Note that the items in ``(n,)`` slots are trained on."""
        self.used[slots] = True

    def refresh(self, slots: Tensor, losses: Tensor) -> None:
        """Account for the change of the losses to the items that were trained on.

        With the mean change ``d`` since the last refresh over the items that were there, the importance ``H`` of the
        ``n`` used items falls by ``(1 - momentum) * (d - mean(H) / n)``.

        Args:
            slots: ``(n,)`` all slots that hold an item.
            losses: ``(n,)`` of these items now.
        """
        losses = losses.double().cpu()
        before, used = self.loss[slots], self.used.nonzero().flatten()
        known = ~before.isnan()
        if len(used) and bool(known.any()):
            change = (losses - before)[known].mean()
            average = self.importance[used].mean() / len(used)
            self.importance[used] -= (1 - self.momentum) * (change - average)
        self.loss[slots] = losses
        self.used.zero_()

    def _make_room(self, capacity: int) -> None:
        if not len(self.importance):
            self.importance = torch.zeros(capacity, dtype=torch.float64)
            self.loss = torch.full((capacity,), torch.nan, dtype=torch.float64)
            self.used = torch.zeros(capacity, dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        """Importance, losses and use of the items, and when each class first came."""
        names = ("importance", "loss", "used", "first")
        return {**{name: getattr(self, name).clone() for name in names}, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        for name in ("importance", "loss", "used", "first"):
            setattr(self, name, state[name].cpu().clone())
        self.seen = int(state["seen"])


def taken_from_stream(
    policy: SampleImportance, labels: Tensor, length: int, pace: float, generator: torch.Generator
) -> Tensor:
    """``(B,)`` bool: which samples of a batch are trained on as they come, of ``(B,)`` labels; flexible sampling.

    Sample ``n`` of a stream of ``length``, whose class was first seen at ``n_c``, is taken with the probability
    ``min(1, pace * (n - n_c) * K / length)``, ``K`` being the number of classes seen: none of a class that is new.
    """
    first = policy.first_arrivals(labels)
    age = policy.seen + torch.arange(len(labels)) - first[labels]
    probability = pace * age.double() * int((first >= 0).sum()) / length
    return torch.rand(len(labels), dtype=torch.float64, generator=generator) < probability
