"""A memory of earlier samples, with what a method keeps of each of them, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cl.nn.replay import ReplayBuffer


class Drawn(NamedTuple):
    """The share that this process has of a batch from the memory.

    Attributes:
        inputs: As the module takes them; ``None`` where no sample was read.
        labels: ``(n,)`` class ids.
        extras: ``(n, ...)`` what was kept of these samples, by name.
        weight: Factor of a mean over these rows, with which DDP's mean over the processes is the mean over all rows.
        part: Share of the whole batch that these rows are; 0: they only let the process make the pass.
        start: Place of the first of these rows in the whole batch.
        total: Rows of the whole batch.
    """

    inputs: Any
    labels: Tensor
    extras: dict[str, Tensor]
    weight: float
    part: float = 1.0
    start: int = 0
    total: int = 0

    @property
    def real(self) -> int:
        """How many of these rows count."""
        return round(self.part * self.total)


@dataclass
class Memory:
    """Samples of the stream, with what is kept beside them; the same on all processes.

    Attributes:
        buffer: What is remembered: positions in the training split, or samples.
        batch_size: Remembered samples in a training batch, over all processes.
        by_index: Whether the buffer holds positions.
        joins: Whether a batch of the memory joins every training batch; else methods draw for themselves.
        draws: Memory batches drawn so far; seeds their augmentation.
        extras: ``(capacity, ...)`` what is kept of each sample beside it (its logits, say), by name.
        offered: The stream's batch of the current step, until it is remembered.
        kept: What is kept beside its samples.
        left_out: The user's step was not made or returned nothing, so nothing is kept beside its samples.
        enters_first: A batch of the stream is remembered before the first step on it, not after the last.
        draws_of_step: Batches that a method drew for itself in the current step.
        draws_before: The same of the step before, which is likely to be as many.
        judged: ``(B_local, ...)`` what the policy looks at, of the stream's samples in this step; ``None``: nothing.
    """

    buffer: ReplayBuffer
    batch_size: int
    by_index: bool = True
    joins: bool = True
    draws: int = 0
    extras: dict[str, Tensor] = field(default_factory=dict)
    offered: Any = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    left_out: bool = False
    enters_first: bool = False
    draws_of_step: int = 0
    draws_before: int = 0
    judged: Tensor | None = None

    def write_extra(self, name: str, slots: Tensor, values: Tensor) -> None:
        """Put ``(n, ...)`` values into ``slots``; storage is made when the first come.

        Raises:
            ValueError: If a value has another shape than those that are kept.
        """
        store = self.extras.get(name)
        if store is None:
            capacity, device = self.buffer.capacity, self.buffer.device
            store = torch.zeros(capacity, *values.shape[1:], dtype=values.dtype, device=device)
            self.extras[name] = store
        if store.shape[1:] != values.shape[1:]:
            raise ValueError(
                f"the memory keeps `{name}` of shape {tuple(store.shape[1:])} for each sample, but was given "
                f"{tuple(values.shape[1:])}; keep values of one shape."
            )
        store[slots.to(store.device)] = values.to(store)

    def read_extras(self, slots: Tensor, device: torch.device) -> dict[str, Tensor]:
        """What is kept of the samples in ``slots``, by name."""
        return {name: store[slots.to(store.device)].to(device) for name, store in self.extras.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""
        return self.buffer.nbytes + sum(store.nbytes for store in self.extras.values())

    @property
    def bytes_beside(self) -> int:
        """Bytes of what is kept beside samples and labels: of methods (logits, say), and of the policy."""
        return self.buffer.capacity * self.buffer.policy.bytes_per_slot + sum(
            store.nbytes for store in self.extras.values()
        )

    def state_dict(self) -> dict[str, Any]:
        """The memory and how often it was drawn from."""
        state = {"version": 1, "by_index": self.by_index, "draws": self.draws, "buffer": self.buffer.state_dict()}
        return {**state, "extras": {name: store.clone() for name, store in self.extras.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly as what was saved.

        Raises:
            ValueError: If it was saved with another kind of storage, capacity or policy.
        """
        if state["by_index"] != self.by_index:
            kinds = ["sample", "index"]
            raise ValueError(
                f'the checkpoint was made with `store="{kinds[state["by_index"]]}"`, but this replay has '
                f'`store="{kinds[self.by_index]}"`; use the one that the checkpoint was made with.'
            )
        self.buffer.load_state_dict(state["buffer"])
        self.draws = int(state["draws"])
        extras = state.get("extras", {})  # missing in older checkpoints
        self.extras = {name: store.to(self.buffer.device, copy=True) for name, store in extras.items()}


@dataclass
class SplitMemory(Memory):
    """A memory with a part that is never trained on.

    Attributes:
        apart: Positions of the samples that the correction is fitted on; ``None``: there is no such part.
    """

    apart: ReplayBuffer | None = field(default=None)

    @property
    def nbytes(self) -> int:
        """Bytes of both parts."""
        return super().nbytes + (0 if self.apart is None else self.apart.nbytes)

    def state_dict(self) -> dict[str, Any]:
        """Both parts."""
        return {**super().state_dict(), "apart": None if self.apart is None else self.apart.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly as what was saved."""
        super().load_state_dict(state)
        if self.apart is not None:
            self.apart.load_state_dict(state["apart"])
