"""Which item goes into which slot of a replay buffer; policies never see what is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor


class Policy(ABC):
    """Decides slots for a batch of items, exactly as if they came one by one.

    Decisions depend on labels, on what was decided before and on the generator alone, so processes that see the same
    global batches decide alike without a word between them.
    """

    #: Name in a saved state.
    name: ClassVar[str]
    #: Bytes that it keeps for each slot.
    bytes_per_slot: ClassVar[int] = 0
    #: It decides by features, so nobody can tell beforehand what it will hold.
    by_features: ClassVar[bool] = False

    @abstractmethod
    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """Slots for a batch.

        Args:
            labels: ``(B,)`` int64 class ids, at least 0.
            held: ``(capacity,)`` int64 class id of every slot, -1: empty. Not changed.
            generator: Source of all randomness, on the CPU.
            features: ``(B, D)``, for policies that look at them.

        Returns:
            ``(B,)`` int64 slots, -1: the item is left out. Where a slot is given twice, the later item stays.
        """

    def release(self, labels: Tensor, held: Tensor) -> Tensor:
        """``(F,)`` slots to be emptied before the batch is placed; none by default."""
        return torch.empty(0, dtype=torch.long)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Save what is known of the stream so far, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""


class Reservoir(Policy):
    """Reservoir sampling (Vitter 1985, algorithm R): after ``S`` items each is held with probability ``capacity / S``.

    Item ``s`` (from 0) fills slot ``s`` while there is room; then ``j`` is drawn from ``{0..s}``, and the item goes
    into slot ``j`` if there is one.
    """

    name = "reservoir"

    def __init__(self) -> None:
        self.seen = 0

    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """See :class:`Policy`; one draw for each item that finds the buffer full."""
        slots = torch.arange(self.seen, self.seen + len(labels))
        self.seen += len(labels)
        late = slots >= len(held)  # a batch may fill the buffer and overflow it
        uniform = torch.rand(int(late.sum()), dtype=torch.float64, generator=generator)
        drawn = (uniform * (slots[late] + 1)).long()
        slots[late] = torch.where(drawn < len(held), drawn, -1)
        return slots

    def state_dict(self) -> dict[str, Any]:
        """Number of items so far."""
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.seen = int(state["seen"])


class Ring(Policy):
    """One first-in-first-out ring per class, of ``capacity // num_classes`` slots (Chaudhry et al., arXiv:1902.10486).

    A class that has not come yet leaves its slots empty, so the memory of a class never changes size.

    Args:
        num_classes: Number of classes that will ever come.

    Raises:
        ValueError: In :meth:`place`, if there is less than one slot per class, or for a label out of range.
    """

    name = "ring"

    def __init__(self, num_classes: int) -> None:
        self.seen = torch.zeros(num_classes, dtype=torch.long)

    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """See :class:`Policy`; nothing is drawn."""
        classes = len(self.seen)
        size = len(held) // classes
        if size < 1:
            raise ValueError(f"a ring of {len(held)} slots has none for each of {classes} classes; give it {classes}.")
        if len(labels) and int(labels.max()) >= classes:
            raise ValueError(f"label {int(labels.max())} is out of range for a ring of {classes} classes.")
        slots = labels * size + (self.seen[labels] + occurrence(labels)) % size
        self.seen += torch.bincount(labels, minlength=classes)
        return slots

    def state_dict(self) -> dict[str, Any]:
        """Items so far, by class."""
        return {"seen": self.seen.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`.

        Raises:
            ValueError: If it was saved with another number of classes, and so with another share for each.
        """
        if len(state["seen"]) != len(self.seen):
            raise ValueError(
                f"the saved ring has shares for {len(state['seen'])} classes, but this one for {len(self.seen)}; a "
                'stream that grows needs a policy that does not count classes beforehand: "class_balanced".'
            )
        self.seen.copy_(state["seen"])


def occurrence(labels: Tensor) -> Tensor:
    """``(B,)`` how often each label came before in the batch."""
    order = labels.argsort(stable=True)
    sorted_labels = labels[order]
    count = torch.empty_like(order)
    count[order] = torch.arange(len(labels)) - torch.searchsorted(sorted_labels, sorted_labels)
    return count


def first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """``(n,)`` rows of the first ``count`` items of every label among ``(B,)`` labels, in order."""
    return (occurrence(labels) < count).nonzero().flatten()
