"""A memory whose batches a method draws for itself, with what it keeps of each sample beside the sample."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import share
from lightning_cl.mixins.batch import unpack
from lightning_cl.mixins.replay import ReplayMixin
from lightning_cl.namespace import move_data_to_device
from lightning_cl.nn.replay import take


class Drawn(NamedTuple):
    """The share that this process has of a batch from the memory.

    Attributes:
        inputs: As the module takes them.
        labels: ``(n,)`` class ids.
        extras: ``(n, ...)`` what was kept of these samples, by name.
        weight: Factor of a mean over these rows, with which DDP's mean over the processes is the mean over all rows.
    """

    inputs: Any
    labels: Tensor
    extras: dict[str, Tensor]
    weight: float


class MemoryMixin(ReplayMixin):
    """Draws apart: nothing joins the stream's batch. ``configure_replay`` comes first."""

    def _with_memory(self, batch: Any, batch_idx: int) -> Any:
        if not self.replay.by_index and self._is_remembered(batch_idx):
            rows = len(self._replay_stream.train_batch(batch_idx).index)
            self.__dict__["_stream_batch"] = take(batch, torch.arange(rows))  # a step may work in place
        return batch

    def draw(self, count: int | None = None) -> Drawn | None:
        """A batch of the memory, the same over all processes whatever their number; ``None`` while it is empty.

        Args:
            count: Samples over all processes; the memory's ``batch_size`` when ``None``.
        """
        replay, buffer, trainer = self.replay, self.replay.buffer, self.trainer
        if not len(buffer):
            return None
        slots = buffer.draw(replay.batch_size if count is None else count)
        replay.draws += 1
        start, stop = share(len(slots), trainer.world_size, trainer.global_rank)
        own = slots[start:stop] if stop > start else slots[:1]  # all processes make a pass
        items = buffer.read(own)
        device = trainer.strategy.root_device
        # What was remembered has been through all hooks but the last.
        batch = self._made(items, start) if replay.by_index else move_data_to_device(self._pinned(items), device)
        after = vars(self._replay_stream).get("on_after_batch_transfer")  # of a wrapped data module
        batch = (after or super(ReplayMixin, self).on_after_batch_transfer)(batch, 0)
        inputs, labels = unpack(batch, self.continual.batch_keys)
        return Drawn(inputs, labels, replay.read_extras(own, labels.device), self._weight_of(stop - start, len(slots)))

    def _weight_of(self, local: int, total: int) -> float:
        """DDP weighs this process's whole loss by its share of the stream's batch, which is taken back here."""
        if self.trainer.world_size == 1:
            return 1.0
        own = self._replay_stream.train_weight(self.trainer.fit_loop.batch_idx)
        return float(self.trainer.world_size * local / total / own) if own else 0.0

    def keep(self, **extras: Tensor) -> None:
        """Keep ``(B, ...)`` values of the current batch's samples with those of them that the memory takes."""
        self.__dict__["_kept"] = {name: value.detach() for name, value in extras.items()}

    def _write(self, rows: Tensor, slots: Tensor, batch: Any, index: Tensor) -> None:
        super()._write(rows, slots, batch, index)
        kept, self.__dict__["_kept"] = self.__dict__.get("_kept", {}), {}
        for name, values in kept.items():
            if len(rows):
                self.replay.write_extra(name, slots, self._of_all(values, rows, len(index)))
