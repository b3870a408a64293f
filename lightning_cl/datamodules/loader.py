"""A stateful loader that follows a plan: rank-aware, the same bits for any number of workers, resumable mid-epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from lightning_cl.datamodules.sampling import EvalPlan, TrainBatch, TrainPlan, mix_seed
from lightning_cl.datamodules.stream_dataset import Key, StreamDataset
from lightning_cl.versions import check_version


class PlanSampler(Sampler[list[Key]]):
    """Yields one rank's batches of keys; the epoch and the first batch can be set."""

    def __init__(self, plan: TrainPlan | EvalPlan, world_size: int, rank: int, augment: bool) -> None:
        self.plan, self.world_size, self.rank, self.augment = plan, world_size, rank, augment
        self.epoch = 0
        self.start = 0
        #: Whether a pass may be the Trainer's; until it has begun the epoch, all are of others who look at a batch.
        self.begun = True

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning when it begins or continues an epoch."""
        self.epoch, self.begun = epoch, True

    def __len__(self) -> int:
        return len(self.plan)

    def batch(self, order: torch.Tensor, batch_idx: int) -> TrainBatch:
        """Share of this rank in batch ``batch_idx``."""
        if isinstance(self.plan, TrainPlan):
            return self.plan.batch(order, batch_idx, self.world_size, self.rank)
        return self.plan.batch(order, batch_idx, self.rank)

    def rule(self) -> dict[str, int]:
        """What decides which samples batch ``i`` of an epoch holds, besides the stream itself."""
        names = ("batch_size", "updates", "seed")
        return {name: int(getattr(self.plan, name)) for name in names if hasattr(self.plan, name)}

    def order(self) -> torch.Tensor:
        """Positions in this epoch's order."""
        return self.plan.order(self.epoch) if isinstance(self.plan, TrainPlan) else self.plan.order()

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order()
        for batch_idx in range(self.start, len(self.plan)):
            batch = self.batch(order, batch_idx)
            index = batch.index.tolist()
            if self.augment and isinstance(self.plan, TrainPlan):
                again = (batch.update,) if batch.update else ()
                yield [(i, mix_seed(self.plan.seed, self.epoch, i, *again)) for i in index]
            else:
                yield [(i, None) for i in index]


class StreamLoader:
    """Iterable over the batches of a plan; what ``ContinualDataModule`` hands to the Trainer.

    It is not a ``DataLoader``, so that Lightning leaves its sampler alone, and it is lazy: nothing is fetched before
    the first batch is asked for. One loader (with its workers) serves all tasks; only the plan changes.

    Args:
        dataset: Batches by keys.
        sampler: The keys of each batch.
        options: Passed on to :class:`torch.utils.data.DataLoader` (workers, pinned memory).
    """

    def __init__(self, dataset: StreamDataset, sampler: PlanSampler, **options: Any) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.batch_sampler = None  # Lightning looks for it, and in 2.5.0 for a sampler within
        #: Called before the first batch of a Trainer's pass is fetched.
        self.on_start: Callable[[], None] | None = None
        self._resume: tuple[int, int] | None = None
        self._resumed_rule: dict[str, int] = {}
        self._position = (0, 0)  # epoch of the pass, and global batches handed out in it
        self._passes = 0  # that are not over
        #: Epoch and number of a batch on its way from here to the training step.
        self.fetched: tuple[int, int] | None = None
        self._options = options
        self._loader = self._fetching(**options)

    def _fetching(self, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            self.dataset,
            batch_sampler=self.sampler,
            collate_fn=as_it_is,  # the data set makes whole batches
            # Its own generator: making an iterator draws a base seed, which must not move the global generator.
            generator=torch.Generator().manual_seed(0),
            **options,
        )

    @property
    def batch_size(self) -> int:
        """Global batch size."""
        return self.sampler.plan.batch_size

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        epoch = self.sampler.epoch
        self.sampler.start = 0
        if self.sampler.begun:
            self.sampler.start = self._resume[1] if self._resume is not None and self._resume[0] == epoch else 0
            self._resume = None
            if self.on_start is not None:
                self.on_start()
        if 0 < self.sampler.start < len(self):
            self._refuse_another_rule()
        # Workers that stay serve one pass: a second one beside it, as a look at a batch is, would take them away.
        loader = self._fetching(**{**self._options, "persistent_workers": False}) if self._passes else self._loader
        self._passes += 1
        try:
            for done, batch in enumerate(loader, self.sampler.start + 1):
                if self.on_start is None:
                    self.hand_out(epoch, done)
                self.fetched = epoch, done
                yield batch
        finally:
            self._passes, self.fetched = self._passes - 1, None

    def hand_out(self, epoch: int, batches: int) -> None:
        """Note how many global batches of an epoch were trained on.

        In a fit this is said at every step, since not every pass over the loader is the Trainer's: others may look at
        a batch.
        """
        self._position, self.fetched = (epoch, batches), None

    def end_workers(self) -> None:
        """End worker processes that stay from one pass to the next; a later pass starts new ones."""
        self._loader = self._fetching(**self._options)

    def state_dict(self) -> dict[str, int]:
        """Epoch and number of global batches handed out in it; independent of the number of processes."""
        epoch, batch = self._position
        return {"version": 1, "epoch": epoch, "batch": batch, **self.sampler.rule()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at the saved batch when the saved epoch is iterated next.

        Iterating raises a :class:`ValueError` if the epoch would go on with batches of another size, order or number
        of updates, and leave out some samples and take others twice.
        """
        check_version(state, 1, "the training loader")
        self._resume = self._position = int(state["epoch"]), int(state["batch"])
        self._resumed_rule = {name: int(state[name]) for name in self.sampler.rule() if name in state}

    def _refuse_another_rule(self) -> None:
        own, then = self.sampler.rule(), self._resumed_rule
        names = [name for name in then if then[name] != own[name]]
        if names:
            called = {"batch_size": "a global batch size", "updates": "`updates_per_batch`", "seed": "the seed"}
            differ = ", ".join(f"{called[name]} of {then[name]} (here {own[name]})" for name in names)
            raise ValueError(
                f"the checkpoint is from the middle of an epoch, after {self.sampler.start} batches with {differ}, so "
                "the rest of the epoch would leave out some samples and repeat others; go on with the same settings "
                "(with `per_device=True` also on as many processes), or from a checkpoint of a task's end."
            )


def as_it_is(batch: Any) -> Any:
    """A batch that the data set has made."""
    return batch
