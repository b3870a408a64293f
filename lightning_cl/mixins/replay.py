"""Replay: a batch of remembered samples joins every training batch before anybody sees it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.label_check import check_labels, class_ids_in
from lightning_cl.datamodules.online import Joined
from lightning_cl.datamodules.sampling import share
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.nn.replay import ReplayBuffer, check_rows, gather_rows_of, join, map_leaves, take


@dataclass
class Replay:
    """A memory and how it is used; the same on all processes.

    Attributes:
        buffer: What is remembered: positions in the training split, or samples.
        batch_size: Remembered samples in a training batch, over all processes.
        by_index: Whether the buffer holds positions.
        draws: Memory batches drawn so far; seeds their augmentation.
        extras: ``(capacity, ...)`` what is kept of each sample beside it (its logits, say), by name.
    """

    buffer: ReplayBuffer
    batch_size: int
    by_index: bool = True
    draws: int = 0
    extras: dict[str, Tensor] = field(default_factory=dict)

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


class ReplayMixin(ContinualMixin):
    """Joins remembered samples behind the stream's, while training; ``configure_continual`` comes first.

    The joined batch has the form of the user's own batches, so ``training_step`` and every other method work on it
    without knowing. A hook ``on_after_batch_transfer`` of the module's own sees the joined batch, too.
    """

    def configure_replay(self, replay: Replay) -> None:
        """Use this memory from here on."""
        self.__dict__["_replay"] = replay
        self.__dict__["_stream_batch"] = None
        self.continual.replays = True
        # What is said there is what is wanted.
        warnings.filterwarnings("ignore", message="You have overridden `on_after_batch_transfer` in `LightningModule`")

    @property
    def replay(self) -> Replay:
        """The memory."""
        replay: Replay = self.__dict__["_replay"]
        return replay

    @property
    def _replay_stream(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _fetched(self) -> int | None:
        """The training batch that has left the stream's loader and not yet reached the loop; ``None``: no such batch.

        Methods move other batches to the device, too: for statistics, or for an evaluation within training.
        """
        trainer = self._trainer
        if trainer is None or not trainer.training or trainer.train_dataloader is None:
            return None
        loader: Any = trainer.train_dataloader
        taken = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return taken if loader.fetched == (trainer.current_epoch, taken + 1) else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Put the memory batch behind the stream's."""
        return super().on_after_batch_transfer(self.join_memory(batch), dataloader_idx)

    def join_memory(self, batch: Any) -> Any:
        """The batch with remembered samples behind its own, if it is the one that the loop trains on next."""
        batch_idx = self._fetched()
        return batch if batch_idx is None else self._with_memory(batch, batch_idx)

    # ------------------------------------------------------------------ joining

    def _with_memory(self, batch: Any, batch_idx: int) -> Any:
        stream, replay = self._replay_stream, self.replay
        own = stream.train_batch(batch_idx)
        check_rows(batch, len(own.index))
        self._check_targets(batch, own.index)
        slots = replay.buffer.draw(replay.batch_size)
        start, stop = share(len(slots), self.trainer.world_size, self.trainer.global_rank)
        if not replay.by_index and self._is_remembered(batch_idx):
            # What is joined is a copy; else a step that works in place must not change what will be remembered.
            self.__dict__["_stream_batch"] = batch if stop > start else take(batch, torch.arange(len(own.index)))
        if len(slots) == 0:
            return batch
        stream.joined = Joined(stop - start, len(slots), replay.buffer.labels[slots])
        replay.draws += 1
        if start == stop:
            return batch
        if own.real == 0:  # a repeated row, for want of any other
            batch = take(batch, torch.zeros(0, dtype=torch.long))
        items = replay.buffer.read(slots[start:stop])
        if replay.by_index:
            return join(batch, self._made(items, start))
        return join(batch, self._pinned(items))

    def _made(self, index: Tensor, start: int) -> Any:
        """The samples at these positions, freshly augmented, as the stream's are made and moved."""
        stream = self._replay_stream
        batch = stream.batch(index, stream.train_view, seed=self.replay.draws, start=start)
        check_rows(batch, len(index))
        self._check_targets(batch, index)
        batch = self.trainer.precision_plugin.convert_input(batch)
        batch = self._pinned(self._on_before_batch_transfer(batch, 0))
        return self._call_batch_hook("transfer_batch_to_device", batch, self.trainer.strategy.root_device, 0)

    def _pinned(self, batch: Any) -> Any:
        """In pinned memory if the stream's batches are, so that moving them to a GPU makes nobody wait."""
        wanted = self.trainer.strategy.root_device.type == "cuda" and self._replay_stream.pin_memory is not False

        def pin(path: str, leaf: Any) -> Any:
            return leaf.pin_memory() if isinstance(leaf, Tensor) and leaf.device.type == "cpu" else leaf

        return map_leaves(pin, batch) if wanted else batch

    def _check_targets(self, batch: Any, index: Tensor) -> None:
        """Compare class ids with the source's; whatever else the targets are, they are remembered as they are."""
        stream = self._replay_stream
        given = class_ids_in(batch, stream.batch_keys, len(index))
        if given is not None and given.device.type == "cpu":  # elsewhere it would wait for the device at every step
            check_labels(given, stream.source.train_labels[index], index)

    # ------------------------------------------------------------------ remembering

    def _is_remembered(self, batch_idx: int) -> bool:
        """After the last update on a batch; where a task has several epochs, in its first."""
        stream = self._replay_stream
        first = stream.online or self.trainer.current_epoch == stream.task.first_epoch
        return bool(first and stream.is_last_update(batch_idx))

    def remember(self, batch_idx: int) -> None:
        """Offer the stream's samples of a training batch to the memory, after its step; the same on all processes."""
        batch, self.__dict__["_stream_batch"] = self.__dict__["_stream_batch"], None
        if not self._is_remembered(batch_idx):
            return
        stream, buffer = self._replay_stream, self.replay.buffer
        index = stream.train_rows(batch_idx)
        rows, slots = buffer.place(stream.source.train_labels[index])
        order = rows.argsort()
        self._write(rows[order], slots[order], batch, index)

    def _write(self, rows: Tensor, slots: Tensor, batch: Any, index: Tensor) -> None:
        """Put the ``(n,)`` sorted rows of the global batch into their slots."""
        if self.replay.by_index:
            self.replay.buffer.write(slots, index[rows])
        elif len(rows):
            self.replay.buffer.write(slots, self._of_all(batch, rows, len(index)))

    def _of_all(self, values: Any, rows: Tensor, total: int) -> Any:
        """The given sorted rows of a global batch of ``total``: only they travel; all processes know whose they are."""
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        shares = [share(total, world_size, r) for r in range(world_size)]
        sizes = [int(((rows >= start) & (rows < stop)).sum()) for start, stop in shares]
        start, stop = shares[rank]
        return gather_rows_of(take(values, rows[(rows >= start) & (rows < stop)] - start), sizes)
