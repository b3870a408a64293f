"""A replay buffer: stores rows of batches in the slots that a policy names."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_cl.nn.replay.batches import check_alike, check_rows, is_list_leaf, leaves, map_leaves, take
from lightning_cl.nn.replay.policies import Policy, Reservoir
from lightning_cl.nn.replay.sequences import padded_alike
from lightning_cl.sample_list import SampleList, owned

#: Where the entries of a sample list are in a saved buffer, which holds plain values alone.
_LISTED = "samples of any size"


class ReplayBuffer:
    """At most ``capacity`` items with their class labels; an item is a row of whatever a batch is.

    Decisions and draws come from a generator of its own, on the CPU, and depend on labels alone, so that processes
    which are given the same global batches hold the same. Storage is made when the first items come.

    Args:
        capacity: Number of slots.
        policy: Which item goes into which slot; a :class:`Reservoir` by default.
        device: Where items are stored; the CPU by default. Labels are always on the CPU.
        seed: Starts the generator.

    Attributes:
        labels: ``(capacity,)`` int64 class id of every slot, -1: empty.

    Raises:
        ValueError: For a capacity below 1; in :meth:`place`, for labels that are no class ids.
    """

    def __init__(
        self, capacity: int, policy: Policy | None = None, device: torch.device | str | None = None, seed: int = 0
    ) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of a replay buffer is {capacity}; give at least 1 slot.")
        self.policy = policy or Reservoir()
        self.device = torch.device("cpu" if device is None else device)
        self.generator = torch.Generator().manual_seed(seed)
        self.labels = torch.full((capacity,), -1, dtype=torch.long)
        self._items: Any = None
        self._fresh = self.policy.state_dict()

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return len(self.labels)

    def __len__(self) -> int:
        """Number of slots that hold an item."""
        return int((self.labels >= 0).sum())

    @property
    def used(self) -> Tensor:
        """``(n,)`` slots that hold an item, in order."""
        return (self.labels >= 0).nonzero().flatten()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored, empty slots included: tensors, UTF-8 text, and 8 bytes for a plain number."""
        own = self.labels.nbytes + self.capacity * self.policy.bytes_per_slot
        return own + sum(_bytes_of(leaf) for _, leaf in leaves(self._items) if leaf is not None)

    def clear(self) -> None:
        """Forget all items, and what the policy knows of the stream so far; the generator goes on."""
        self.labels.fill_(-1)
        self.policy.load_state_dict(self._fresh)

    # ------------------------------------------------------------------ storing

    def add(self, items: Any, labels: Tensor, features: Tensor | None = None) -> None:
        """Offer a batch; equal to offering its rows one by one.

        Args:
            items: A tensor, or tuples, lists and dictionaries of tensors and lists, with ``B`` rows.
            labels: ``(B,)`` class ids, integers of at least 0.
            features: ``(B, D)``, for policies that look at them.
        """
        check_rows(items, len(labels))
        rows, slots = self.place(labels, features)
        self.write(slots, take(items, rows))

    def place(self, labels: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decide on a batch, and note the labels; :meth:`write` must follow.

        Returns:
            ``(n,)`` rows of the batch that stay, and ``(n,)`` their slots, each slot once.
        """
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(
                f"replay needs one integer class id per sample, `(B,)`, but was given labels of shape "
                f"{tuple(labels.shape)} and type {labels.dtype}."
            )
        labels = labels.detach().cpu().long()
        if len(labels) and int(labels.min()) < 0:
            raise ValueError(f"the class id {int(labels.min())} is negative; class ids count from 0.")
        self.labels[self.policy.release(labels, self.labels)] = -1
        if len(labels) == 0:
            return labels, labels.clone()
        slots = self.policy.place(labels, self.labels, self.generator, features)
        last = torch.full((self.capacity + 1,), -1).scatter_reduce(0, slots % (self.capacity + 1), _rows(slots), "amax")
        used = (last[:-1] >= 0).nonzero().flatten()
        self.labels[used] = labels[last[used]]
        return last[used], used

    def write(self, slots: Tensor, items: Any) -> None:
        """Put the rows of ``items`` into ``slots`` (``(n,)`` int64, each once)."""
        if len(slots) == 0:
            return
        if self._items is None:
            self._items = map_leaves(self._allocate, items, plain=True)
        self._items, items = padded_alike(self._items, items)  # tokens of different lengths
        listed = slots.tolist()

        def put(path: str, store: Any, rows: Any) -> None:
            if isinstance(store, Tensor):
                check_alike(path, rows, store)
                store[slots.to(store.device)] = rows.detach().to(store.device)
            else:
                kept = owned(rows, self.device) if isinstance(rows, SampleList) else rows
                for slot, value in zip(listed, kept, strict=True):
                    store[slot] = value

        map_leaves(put, self._items, items)

    def _allocate(self, path: str, rows: Any) -> Any:
        if isinstance(rows, Tensor):
            return torch.zeros(self.capacity, *rows.shape[1:], dtype=rows.dtype, device=self.device)
        empty = [None] * self.capacity
        return SampleList(empty) if isinstance(rows, SampleList) else empty

    # ------------------------------------------------------------------ drawing

    def draw(self, count: int, among: Tensor | None = None) -> Tensor:
        """At most ``count`` different slots that hold an item, in random order.

        Args:
            count: As many as there are, if there are fewer.
            among: ``(capacity,)`` bool: only from these slots.
        """
        used = self.used if among is None else self.used[among[self.used]]
        return used[torch.randperm(len(used), generator=self.generator)[:count]]

    def read(self, slots: Tensor) -> Any:
        """The items in ``slots``, as a batch of the same structure; ``None`` if nothing was ever stored."""
        return None if self._items is None else take(self._items, slots)

    def sample(self, count: int) -> tuple[Any, Tensor]:
        """``min(count, len(self))`` random items, none twice, and ``(n,)`` their labels."""
        slots = self.draw(count)
        return self.read(slots), self.labels[slots]

    def foresee(self, count: int, items: Any = None, labels: Tensor | None = None) -> Any:
        """The items that the next draw of ``count`` gives, in its order; the buffer is left as it is.

        Args:
            count: As for :meth:`draw`.
            items: That are added before, as by :meth:`add`; not where the policy decides by features.
            labels: Of these; ``None``: nothing is added.

        Returns:
            What :meth:`read` gives of the slots: ``(n, ...)`` of each kind, ``n`` at most ``count``.
        """
        later = ReplayBuffer(self.capacity, deepcopy(self.policy), self.device)
        later.load_state_dict(self.state_dict())
        if labels is not None and not self.policy.by_features:
            later.add(items, labels)
        return later.read(later.draw(count))

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Items, labels, the policy's counters and the generator, as tensors and plain values."""
        return {
            "version": 1,
            "policy": self.policy.name,
            "policy_state": self.policy.state_dict(),
            "labels": self.labels.clone(),
            "items": None if self._items is None else map_leaves(_saved, self._items),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold exactly what was saved.

        Raises:
            ValueError: If it was saved with another capacity or policy.
        """
        saved = (state["policy"], len(state["labels"]))
        if saved != (self.policy.name, self.capacity):
            raise ValueError(
                f"the saved replay buffer has the policy {saved[0]!r} and {saved[1]} slots, but this one "
                f"{self.policy.name!r} and {self.capacity}; use the settings that it was saved with."
            )
        self.policy.load_state_dict(state["policy_state"])
        self.labels.copy_(state["labels"])
        items = _opened(state["items"])
        self._items = None if items is None else map_leaves(lambda p, leaf: _copied(p, leaf, self.device), items)
        self.generator.set_state(state["generator"].cpu())


def _rows(slots: Tensor) -> Tensor:
    return torch.arange(len(slots))


def _saved(path: str, leaf: Any) -> Any:
    copied = _copied(path, leaf)
    return {_LISTED: list(copied)} if isinstance(copied, SampleList) else copied


def _opened(items: Any) -> Any:
    """Saved items with their sample lists."""
    if isinstance(items, Mapping):
        listed = set(items) == {_LISTED}
        return SampleList(items[_LISTED]) if listed else {key: _opened(part) for key, part in items.items()}
    nested = isinstance(items, (list, tuple)) and not is_list_leaf(items)
    return type(items)(_opened(part) for part in items) if nested else items


def _copied(path: str, leaf: Any, device: torch.device | None = None) -> Any:
    if isinstance(leaf, SampleList):
        return owned(leaf, device)
    return leaf.to(device=device, copy=True) if isinstance(leaf, Tensor) else list(leaf)


def _bytes_of(leaf: Any) -> int:
    if isinstance(leaf, Tensor):
        return leaf.nbytes
    if isinstance(leaf, SampleList):
        found: list[Tensor] = []
        apply_to_collection(leaf, Tensor, found.append)
        return sum(tensor.nbytes for tensor in found)
    return sum(len(value.encode()) if isinstance(value, str) else 8 for value in leaf if value is not None)
