"""Look up what a batch of a stream holds, in the plans that the loaders follow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.batch_form import BatchKeys
from lightning_cl.datamodules.exposure import Joined, joint_weight
from lightning_cl.datamodules.label_check import check_labels, class_ids_in
from lightning_cl.datamodules.loader import PlanSampler, StreamLoader
from lightning_cl.datamodules.position import StreamPosition
from lightning_cl.datamodules.sampling import TrainBatch, TrainPlan, share
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.stream_plan import EvalBatch, EvalData, Stage
from lightning_cl.datamodules.task import HIDDEN_LABEL


class StreamBatches(StreamPosition):
    """Base of :class:`ContinualDataModule`: which samples every process gets in which batch."""

    source: Source
    batch_keys: BatchKeys | None
    #: Rows that replay added to the current training batch.
    joined: Joined | None
    #: Inside an evaluation at any time, the stage (or the samples) that a module means when it asks for
    #: ``eval_batch(i, "val")``.
    standing_in: Stage | EvalBatch | None = None
    _train_loader: StreamLoader | None
    _eval_loaders: dict[Stage, StreamLoader]
    _orders: dict[str, tuple[Any, Tensor]]

    def _world(self) -> tuple[int, int]:
        """Number of processes, and which one this is."""
        trainer = self.trainer
        return (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)

    def train_batch(self, batch_idx: int) -> TrainBatch:
        """Samples of this rank in training batch ``batch_idx`` of the current epoch, and their weight in the mean."""
        assert self._train_loader is not None, "there is no training loader yet"
        sampler = self._train_loader.sampler
        return sampler.batch(self._order("train", sampler), batch_idx)

    def train_rows(self, batch_idx: int) -> Tensor:
        """``(B,)`` positions of training batch ``batch_idx`` over all processes, in order; the same on all of them."""
        assert self._train_loader is not None, "there is no training loader yet"
        sampler = self._train_loader.sampler
        assert isinstance(sampler.plan, TrainPlan)
        return sampler.plan.rows(self._order("train", sampler), batch_idx)

    def train_batch_size(self, batch_idx: int) -> int:
        """Samples of training batch ``batch_idx`` over all processes, those that replay adds left out."""
        assert self._train_loader is not None, "there is no training loader yet"
        plan = self._train_loader.sampler.plan
        return min(plan.batch_size, len(plan.index) - batch_idx // self.updates_per_batch * plan.batch_size)

    def new_samples(self, batch_idx: int) -> int:
        """As :meth:`train_batch_size`, but 0 for a batch that only comes again (``updates_per_batch``)."""
        return 0 if batch_idx % self.updates_per_batch else self.train_batch_size(batch_idx)

    def is_last_update(self, batch_idx: int) -> bool:
        """Whether training batch ``batch_idx`` is the last update on its samples (``updates_per_batch``)."""
        return (batch_idx + 1) % self.updates_per_batch == 0

    def train_weight(self, batch_idx: int) -> float:
        """Weigh this process's mean loss, so that DDP's mean is that of the global batch."""
        batch, rows = self.train_batch(batch_idx), self.train_batch_size(batch_idx)
        return joint_weight(batch, rows, self.joined, self._world()[0])

    def visible_labels(self, index: Tensor) -> Tensor:
        """``(n,)`` labels that the learner is given of the training samples at ``(n,)`` positions."""
        labels, hidden = self.source.train_labels[index], self.layout.hidden
        return labels if hidden is None else labels.masked_fill(hidden[index], HIDDEN_LABEL)

    def train_classes(self, batch_idx: int) -> list[int]:
        """Sorted classes of training batch ``batch_idx`` over all processes, those that replay adds included."""
        labels = self.visible_labels(self.train_rows(batch_idx))
        labels = labels[labels != HIDDEN_LABEL]
        if self.joined is not None:
            labels = torch.cat([labels, self.joined.labels.to(labels)])
        classes: list[int] = labels.unique().tolist()
        return classes

    def check_labels(self, batch: Any, batch_idx: int, moved: bool = False) -> None:
        """Compare the class ids in training batch ``batch_idx`` with the source's.

        Args:
            batch: As the module gets it.
            batch_idx: Which batch of the current epoch.
            moved: A hook may have put the rows into another order.

        Raises:
            ValueError: If they differ; the message shows both.
        """
        if not self.source.has_classes:
            return
        own, joined = self.train_batch(batch_idx), self.joined
        index = own.index[: own.real]
        expected = self.visible_labels(index)
        if joined is not None:
            start, stop = share(joined.total, *self._world())
            expected = torch.cat([expected, joined.labels[start:stop].to(expected)])
        given = class_ids_in(batch, self.batch_keys, len(expected))
        if given is not None and own.real:
            check_labels(given, expected, index, moved)

    def eval_data(self, stage: Stage) -> EvalData:
        """The evaluation samples of a stage."""
        return self.layout.evaluation[stage]

    def eval_batch(self, batch_idx: int, stage: Stage = "val") -> EvalBatch:
        """Samples of this rank in evaluation batch ``batch_idx``, in the order of the batch; padding left out."""
        if stage == "val" and self.standing_in is not None:
            if isinstance(self.standing_in, EvalBatch):
                return self.standing_in
            stage = self.standing_in
        sampler = self._eval_loaders[stage].sampler
        batch = sampler.batch(self._order(stage, sampler), batch_idx)
        return self.eval_data(stage).batch(batch.index[: batch.real])

    def eval_task(self, batch_idx: int, stage: Stage = "val") -> int:
        """The task of evaluation batch ``batch_idx``: that of all its samples with ``task_identity=True``."""
        sampler = self._eval_loaders[stage].sampler
        first = sampler.batch(self._order(stage, sampler), batch_idx).index[0]  # also of a process that only repeats it
        return int(self.eval_data(stage).task_of[first])

    def _order(self, stage: str, sampler: PlanSampler) -> Tensor:
        key = (sampler.plan, sampler.epoch)
        known = self._orders.get(stage)
        if known is None or known[0][0] is not key[0] or known[0][1] != key[1]:
            self._orders[stage] = known = (key, sampler.order())
        return known[1]
