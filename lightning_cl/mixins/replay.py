"""Lets a module train on a memory: remembered samples join every training batch, or are drawn apart."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.training.memory import Drawn, Memory
from lightning_cl.training.replay import Replay


class ReplayMixin(ContinualMixin):
    """Trains on a memory: ``class MyModel(ReplayMixin, LightningModule)``.

    In ``setup``, ``configure_continual`` comes first, then :meth:`configure_replay`. The author calls :meth:`remember`
    in ``on_train_batch_end``, and saves and loads the memory's ``state_dict``. Joined samples stand behind the
    stream's, in the form of the user's own batches, so ``training_step`` and every method work on them without knowing.
    A hook ``on_after_batch_transfer`` of the module's own sees the joined batch, too.
    """

    def configure_replay(self, memory: Memory) -> None:
        """Use this memory from here on."""
        memory.offered = None
        self.continual.memory = memory
        # What is said there is what is wanted.
        warnings.filterwarnings("ignore", message="You have overridden `on_after_batch_transfer` in `LightningModule`")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Put the memory batch behind the stream's."""
        return super().on_after_batch_transfer(self.join_memory(batch), dataloader_idx)

    def join_memory(self, batch: Any) -> Any:
        """The batch with remembered samples behind its own, if it is the one that the loop trains on next."""
        memory = self.continual.memory
        return batch if memory is None else Replay(self, memory).join(batch)

    def draw(self, count: int | None = None) -> Drawn | None:
        """A batch of the memory, the same over all processes whatever their number; ``None`` while it is empty.

        Args:
            count: Samples over all processes; the memory's ``batch_size`` when ``None``.
        """
        memory = self.continual.memory
        assert memory is not None
        return Replay(self, memory).draw(super().on_after_batch_transfer, count)

    def recall(self) -> Drawn | None:
        """What is kept of a batch of the memory, without its samples; ``None`` while it is empty."""
        assert self.continual.memory is not None
        return Replay(self, self.continual.memory).recall()

    def read(self, slots: Tensor) -> Drawn:
        """The samples in ``(n,)`` slots of the memory, at least one, shared out over the processes."""
        assert self.continual.memory is not None
        return Replay(self, self.continual.memory).read(super().on_after_batch_transfer, slots)

    def keep(self, **extras: Tensor) -> None:
        """Keep ``(B, ...)`` values of the current batch's samples with those of them that the memory takes."""
        assert self.continual.memory is not None
        self.continual.memory.kept = {name: value.detach() for name, value in extras.items()}

    def remember(self, batch_idx: int) -> None:
        """Offer the stream's samples of a training batch to the memory, after its step; the same on all processes."""
        assert self.continual.memory is not None
        Replay(self, self.continual.memory).remember(batch_idx)
