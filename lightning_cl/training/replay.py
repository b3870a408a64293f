"""Replay in a fit: batches of the memory join the stream's or are drawn apart, and the stream's are remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.exposure import Joined
from lightning_cl.datamodules.label_check import check_labels, class_ids_in
from lightning_cl.datamodules.sampling import share
from lightning_cl.namespace import move_data_to_device
from lightning_cl.nn.replay import (
    check_rows,
    gather_rows_of,
    join,
    map_leaves,
    padded_alike,
    padded_over_processes,
    stacks,
    take,
)
from lightning_cl.training.batch import unpack_for
from lightning_cl.training.memory import Drawn, Memory
from lightning_cl.training.transfer import converted


@dataclass
class Replay:
    """A memory in the fit of a module.

    Attributes:
        module: The LightningModule.
        memory: What it remembers.
    """

    module: Any
    memory: Memory

    @property
    def trainer(self) -> Any:
        """The module's Trainer."""
        return self.module.trainer

    @property
    def stream(self) -> Any:
        """The Trainer's DataModule."""
        return self.trainer.datamodule

    # ------------------------------------------------------------------ joining

    def _fetched(self) -> int | None:
        """The training batch that has left the stream's loader and not yet reached the loop; ``None``: no such batch.

        Methods move other batches to the device, too: for statistics, or for an evaluation within training.
        """
        trainer = self.module._trainer
        if trainer is None or not trainer.training or trainer.train_dataloader is None:
            return None
        loader: Any = trainer.train_dataloader
        taken = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return taken if loader.fetched == (trainer.current_epoch, taken + 1) else None

    def join(self, batch: Any) -> Any:
        """The batch with remembered samples behind its own, if it is the one that the loop trains on next."""
        batch_idx = self._fetched()
        if batch_idx is None:
            return batch
        if self.memory.joins:
            return self._joined(batch, batch_idx)
        if not self.memory.by_index and self.is_remembered(batch_idx):
            rows = len(self.stream.train_batch(batch_idx).index)
            self.memory.offered = take(batch, torch.arange(rows))  # a step may work in place
        return batch

    def _joined(self, batch: Any, batch_idx: int) -> Any:
        stream, memory = self.stream, self.memory
        own = stream.train_batch(batch_idx)
        check_rows(batch, len(own.index))
        self._check_targets(batch, own.index)
        slots = memory.buffer.draw(memory.batch_size)
        start, stop = self._joined_part(len(slots))
        if not memory.by_index and self.is_remembered(batch_idx):
            # Stacked rows are copied when they are joined; what is not must be, lest a step that works in place changes
            # what will be remembered.
            copied = stop > start and stacks(batch)
            memory.offered = batch if copied else take(batch, torch.arange(len(own.index)))
        if len(slots) == 0:
            return batch
        stream.joined = Joined(stop - start, len(slots), memory.buffer.labels[slots])
        memory.draws += 1
        if start == stop:
            return batch
        if own.real == 0:  # a repeated row, for want of any other
            batch = take(batch, torch.zeros(0, dtype=torch.long))
        items = memory.buffer.read(slots[start:stop])
        if memory.by_index:
            items = self._made(items, start, self._upcoming(batch_idx, memory.batch_size, self._joined_part))
        else:
            items = self._pinned(items)
        return join(*padded_alike(batch, items))

    def _joined_part(self, count: int) -> tuple[int, int]:
        """Start and stop of this process's part of ``count`` samples that join the stream's."""
        return share(count, self.trainer.world_size, self.trainer.global_rank)

    def _made(self, index: Tensor, start: int, upcoming: tuple[Tensor, int] | None = None) -> Any:
        """The samples at these positions, freshly augmented, as the stream's are made and moved."""
        stream, seed = self.stream, self.memory.draws
        if upcoming is None:
            batch = stream.batch(index, stream.train_view, seed=seed, start=start)
        else:
            batch = stream.batch_of_sequence(index, seed, start, upcoming)
        check_rows(batch, len(index))
        self._check_targets(batch, index)
        batch = self._pinned(converted(self.trainer, batch))
        return self.module._call_batch_hook("transfer_batch_to_device", batch, self.trainer.strategy.root_device, 0)

    def _pinned(self, batch: Any) -> Any:
        """In pinned memory if the stream's batches are, so that moving them to a GPU makes nobody wait."""
        wanted = self.trainer.strategy.root_device.type == "cuda" and self.stream.pin_memory is not False

        def pin(path: str, leaf: Any) -> Any:
            return leaf.pin_memory() if isinstance(leaf, Tensor) and leaf.device.type == "cpu" else leaf

        return map_leaves(pin, batch) if wanted else batch

    def _check_targets(self, batch: Any, index: Tensor) -> None:
        """Compare class ids with the source's; whatever else the targets are, they are remembered as they are."""
        stream = self.stream
        if not stream.source.has_classes:
            return
        given = class_ids_in(batch, stream.batch_keys, len(index))
        if given is not None and given.device.type == "cpu":  # elsewhere it would wait for the device at every step
            check_labels(given, stream.source.train_labels[index], index)

    # ------------------------------------------------------------------ reading ahead

    def _upcoming(
        self, batch_idx: int | None, count: int, part_of: Callable[[int], tuple[int, int]]
    ) -> tuple[Tensor, int] | None:
        """``(n,)`` positions that this process reads next, and the place of the first among all that are drawn then.

        They are right if nothing else is done to the memory until then. ``None`` where nobody reads ahead.

        Args:
            batch_idx: Training batch after which the draw comes; ``None``: it comes in the same step.
            count: Samples that are drawn.
            part_of: Start and stop of this process's part of so many.
        """
        stream, memory = self.stream, self.memory
        if not (memory.by_index and stream.reads_ahead):
            return None
        arriving = labels = None
        if batch_idx is not None and self.is_remembered(batch_idx):
            arriving = stream.train_rows(batch_idx)
            labels = stream.source.train_labels[arriving]
        index = memory.buffer.foresee(count, arriving, labels)
        start, stop = part_of(len(index))
        return (index[start:stop], start) if stop > start else None

    # ------------------------------------------------------------------ drawing

    def draw(self, after_transfer: Callable[[Any, int], Any], count: int | None = None) -> Drawn | None:
        """A batch of the memory, the same over all processes whatever their number; ``None`` while it is empty.

        Args:
            after_transfer: The last of the batch hooks, through which no remembered sample has been.
            count: Samples over all processes; the memory's ``batch_size`` when ``None``.
        """
        memory, count = self.memory, self.memory.batch_size if count is None else count
        if not len(memory.buffer):
            return None
        slots = memory.buffer.draw(count)
        memory.draws_of_step += 1
        is_last = memory.draws_of_step >= memory.draws_before
        upcoming = self._upcoming(self.trainer.fit_loop.batch_idx if is_last else None, count, self._part_of)
        return self.read(after_transfer, slots, upcoming)

    def read(
        self, after_transfer: Callable[[Any, int], Any], slots: Tensor, upcoming: tuple[Tensor, int] | None = None
    ) -> Drawn:
        """The samples in ``(n,)`` slots, at least one, shared out over the processes; see :meth:`draw`.

        Args:
            after_transfer: See :meth:`draw`.
            slots: Of the memory.
            upcoming: What will likely be read next; see :meth:`_upcoming`.
        """
        memory, own, part = self.memory, *self._own(slots)
        memory.draws += 1
        items, device = memory.buffer.read(own), self.trainer.strategy.root_device
        if memory.by_index:
            batch = self._made(items, part.start, upcoming)
        else:
            batch = move_data_to_device(self._pinned(items), device)
        after = vars(self.stream).get("on_after_batch_transfer")  # of a wrapped data module
        batch = (after or after_transfer)(batch, 0)
        inputs, labels = unpack_for(self.module, batch)
        return part._replace(inputs=inputs, labels=labels, extras=memory.read_extras(own, labels.device))

    def recall(self) -> Drawn | None:
        """What is kept of a batch of the memory, without the samples, of which nothing is read; see :meth:`draw`."""
        memory, device = self.memory, self.trainer.strategy.root_device
        if not len(memory.buffer):
            return None
        own, part = self._own(memory.buffer.draw(memory.batch_size))
        return part._replace(labels=memory.buffer.labels[own].to(device), extras=memory.read_extras(own, device))

    def _own(self, slots: Tensor) -> tuple[Tensor, Drawn]:
        """The drawn slots of which this process has the samples, and what share of them these are."""
        start, stop = self._part_of(len(slots))
        own = slots[start:stop] if stop > start else slots[:1]  # all processes make a pass
        weight, part = self._weight_of(stop - start, len(slots)), (stop - start) / len(slots)
        return own, Drawn(None, own, {}, weight, part, start, len(slots))

    def _part_of(self, count: int) -> tuple[int, int]:
        """Start and stop of this process's part of ``count`` drawn samples.

        A process without a sample of the stream's batch gets none: DDP takes its whole loss times 0.
        """
        rank, batch_idx = self.trainer.global_rank, self.trainer.fit_loop.batch_idx
        counting = min(self.trainer.world_size, self.stream.train_batch_size(batch_idx))
        return share(count, counting, rank) if rank < counting else (0, 0)

    def _weight_of(self, local: int, total: int) -> float:
        """DDP weighs this process's whole loss by its share of the stream's batch, which is taken back here."""
        if self.trainer.world_size == 1:
            return 1.0
        own = self.stream.train_weight(self.trainer.fit_loop.batch_idx)
        return float(self.trainer.world_size * local / total / own) if own else 0.0

    # ------------------------------------------------------------------ remembering

    def is_remembered(self, batch_idx: int) -> bool:
        """Beside the last update on a batch, or the first; where a task has several epochs, in its first."""
        stream = self.stream
        first = stream.online or self.trainer.current_epoch == stream.task.first_epoch
        now = stream.new_samples(batch_idx) if self.memory.enters_first else stream.is_last_update(batch_idx)
        return bool(first and now)

    def remember(self, batch_idx: int) -> None:
        """Offer the stream's samples of a training batch to the memory, after its step; the same on all processes."""
        memory = self.memory
        batch, memory.offered = memory.offered, None
        memory.draws_before, memory.draws_of_step = memory.draws_of_step, 0
        kept, memory.kept = memory.kept, {}  # of this step, or of none that keeps anything
        judged, memory.judged = memory.judged, None
        left_out, memory.left_out = memory.left_out and not memory.joins, False
        if left_out or not self.is_remembered(batch_idx):
            return
        stream, buffer = self.stream, memory.buffer
        index = stream.train_rows(batch_idx)
        every = torch.arange(len(index))
        looked = None if judged is None else self._of_all(judged, every, len(index)).cpu()
        rows, slots = buffer.place(stream.source.train_labels[index], looked)
        order = rows.argsort()
        self._write(rows[order], slots[order], batch, kept, index)

    def _write(self, rows: Tensor, slots: Tensor, batch: Any, kept: dict[str, Tensor], index: Tensor) -> None:
        """Put the ``(n,)`` sorted rows of the global batch, and what is kept beside them, into their slots."""
        memory = self.memory
        if memory.by_index:
            memory.buffer.write(slots, index[rows])
        elif len(rows):
            memory.buffer.write(slots, self._of_all(batch, rows, len(index)))
        for name, values in kept.items() if len(rows) else ():
            memory.write_extra(name, slots, self._of_all(values, rows, len(index)))

    def _of_all(self, values: Any, rows: Tensor, total: int) -> Any:
        """The given sorted rows of a global batch of ``total``: only they travel; all processes know whose they are."""
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        shares = [share(total, world_size, r) for r in range(world_size)]
        sizes = [int(((rows >= start) & (rows < stop)).sum()) for start, stop in shares]
        start, stop = shares[rank]
        own = take(values, rows[(rows >= start) & (rows < stop)] - start)
        return gather_rows_of(padded_over_processes(own), sizes)
