"""The loaders of a stream: which plan each of them follows, over which view of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_cl.datamodules.batch_form import BatchKeys
from lightning_cl.datamodules.batch_reader import BatchReader
from lightning_cl.datamodules.batches import StreamBatches
from lightning_cl.datamodules.loader import PlanSampler, StreamLoader
from lightning_cl.datamodules.sampling import EvalPlan, TrainPlan, evaluation_order, keep_back, leading_share, mix_seed
from lightning_cl.datamodules.step_count import accumulation, limited, steps_of_tasks
from lightning_cl.datamodules.stream_dataset import Key, StreamDataset
from lightning_cl.datamodules.stream_plan import EvalData, Stage
from lightning_cl.datamodules.trainer_checks import resets_optimizer
from lightning_cl.namespace import rank_zero_warn


class StreamLoaders(StreamBatches):
    """Base of :class:`ContinualDataModule`: one training and one evaluation loader for all tasks."""

    eval_batch_size: int
    per_device: bool
    seed: int
    drop_last: bool
    replay_share: float
    evaluate_on: Literal["seen", "all"]
    #: Methods are told the task of every evaluation batch, so each batch is of one task.
    task_identity: bool
    num_workers: int
    persistent_workers: bool
    pin_memory: bool | None
    batch_keys: BatchKeys | None
    collate_fn: Callable[[list[Any]], Any] | None
    train_transform: Callable[[Any], Any] | Literal[False] | None
    eval_transform: Callable[[Any], Any] | Literal[False] | None
    #: Serve training images with the evaluation transform (methods that only take statistics ask for it).
    train_view: Literal["train", "eval"]
    #: Share of every task's samples, of each class alike, that a method keeps out of training; it sets it in ``setup``.
    kept_back: float = 0.0
    #: Train on the same batches in every epoch of a task (``Trainer(overfit_batches=...)``).
    repeats_batches: bool = False
    #: What the loaders serve now: the task of "train", the number of tasks of "val" and "test".
    loaded: dict[str, int]
    _eval_orders: dict[Stage, tuple[EvalData, Tensor, list[int]]]
    _datasets: dict[str, StreamDataset]
    _reader: tuple[BatchReader | None, int]  # and the epoch in which it was asked last

    def train_dataloader(self) -> StreamLoader:
        """Batches of the current task; the same loader object for all tasks."""
        task, epoch = self.task_index, self.epoch
        plan = self._plan_of(task)
        if self._train_loader is None:
            self._train_loader = self._loader("train", self.train_view, plan)
        self._train_loader.sampler.plan = plan
        self._train_loader.sampler.epoch = epoch
        if self._in_fit:
            self._train_loader.on_start, self._train_loader.sampler.begun = self._continue, False
        self.loaded["train"] = task
        return self._train_loader

    def _continue(self) -> None:
        """A run that resumes in mid-epoch does so here: before a batch can be augmented on its way to the device."""
        if self._driver is not None and self.trainer is not None:
            self._driver.restore_random_states(self.trainer)

    def val_dataloader(self) -> StreamLoader:
        """One loader over the evaluation data of all tasks seen so far."""
        return self._eval_loader("val", self.num_validated_tasks)

    def test_dataloader(self) -> StreamLoader:
        """One loader over the test data of all tasks."""
        return self._eval_loader("test", self.info.num_tasks)

    def predict_dataloader(self) -> StreamLoader:
        """The test data of all tasks, in the test loader's order."""
        return self.test_dataloader()

    @property
    def num_validated_tasks(self) -> int:
        """How many tasks the validation loader covers now."""
        every = self.evaluate_on == "all" or self.scenario.evaluates_all
        return self.info.num_tasks if every else self.task_index + 1

    def train_loader_for(
        self,
        task_index: int,
        transform: Literal["train", "eval"] = "eval",
        epoch: int = 0,
        index: Tensor | None = None,
    ) -> Iterable[Any]:
        """One pass over a task's training samples, shared out over the ranks.

        Args:
            task_index: Which task.
            transform: ``"eval"`` for statistics, ``"train"`` for augmented images.
            epoch: Seeds order and augmentation of the pass.
            index: ``(N,)`` other positions in the training split, in place of the task's.
        """
        plan = self._train_plan(task_index, self.eval_batch_size, drop_last=False)
        loader = self._loader("train", transform, plan if index is None else replace(plan, index=index))
        loader.sampler.set_epoch(epoch)
        return loader

    def _plan_of(self, task: int) -> TrainPlan:
        """The batches of a task.

        Raises:
            ValueError: If there is none, because ``drop_last`` leaves out the only one.
        """
        plan = self._train_plan(task, self.batch_size_of(task), updates=self.updates_per_batch)
        if self.replay_share and task:
            old = torch.cat([self._train_index(earlier) for earlier in range(task)])
            plan = replace(plan, old=old, replay_share=self.replay_share)
        if len(plan) == 0:
            raise ValueError(
                f"task {task} has {len(plan.index)} training samples, fewer than the global batch size "
                f"{plan.batch_size}, and `drop_last=True` leaves no batch; lower `batch_size` or set `drop_last=False`."
            )
        return replace(plan, index=plan.order(0), shuffle=False, old=None) if self.repeats_batches else plan

    def num_batches(self, task: int) -> int:
        """Training batches in an epoch of a task, as far as the Trainer's ``limit_train_batches`` lets it train."""
        batches = len(self._plan_of(task))
        return batches if self.trainer is None else limited(batches, self.trainer.limit_train_batches)

    def steps_of_tasks(self) -> list[int]:
        """Optimiser steps of every task in the current fit, as planned; ``max_steps`` is not looked at.

        Of a task that stopped early too: what a schedule was made for must not change when a run is resumed.
        """
        assert self.trainer is not None, "only a Trainer makes steps"
        limit = None if self._driver is None else self._driver.limit
        epochs = self.planned.total if limit is None else limit
        batches = [self.num_batches(task) for task in range(self.info.num_tasks)]
        return steps_of_tasks(batches, self.planned, epochs, accumulation(self.trainer))

    def count_steps(self) -> int:
        """Optimiser steps that a learning-rate schedule sees: ``trainer.estimated_stepping_batches`` in a fit.

        Those of the whole stream; of the current task where optimisers and schedules begin anew in each
        (``reset_optimizer=True``).
        """
        assert self.trainer is not None, "only a Trainer makes steps"
        steps, task = self.steps_of_tasks(), 0 if self._driver is None else max(self._driver.started, 0)
        count = steps[task] if resets_optimizer(self.trainer.lightning_module) else sum(steps)
        return count if self.trainer.max_steps == -1 else min(count, self.trainer.max_steps)

    def _train_plan(self, task: int, batch_size: int, drop_last: bool | None = None, updates: int = 1) -> TrainPlan:
        total, drop = self._global_batch(batch_size), self.drop_last if drop_last is None else drop_last
        return TrainPlan(self._train_index(task), total, drop, not self.online, self.seed, updates)

    def _train_index(self, task: int) -> Tensor:
        """``(N,)`` positions of a task's samples that are trained on."""
        index = self.layout.train_index[task]
        return index[~self._is_kept_back(task)] if self.kept_back else index

    def kept_back_index(self, task: int) -> Tensor:
        """``(n,)`` positions of a task's samples that are kept out of its training (``kept_back``)."""
        return self.layout.train_index[task][self._is_kept_back(task)]

    def _is_kept_back(self, task: int) -> Tensor:
        labels = self.source.train_labels[self.layout.train_index[task]]
        return keep_back(labels, self.kept_back, mix_seed(self.seed, 0xBAC2, task))

    def _global_batch(self, batch_size: int) -> int:
        return batch_size * (self._world()[0] if self.per_device else 1)

    def anytime_dataloader(self, index: Tensor) -> StreamLoader:
        """Some of the validation stage's samples, for an evaluation at any time; see :meth:`eval_batch`.

        Args:
            index: ``(N,)`` positions in the split of ``eval_data("anytime")``, in the order of evaluation.
        """
        return self._serve("anytime", index)

    def _eval_loader(self, stage: Stage, num_tasks: int) -> StreamLoader:
        self.loaded[stage] = num_tasks
        data, known = self.eval_data(stage), self._eval_orders.get(stage)
        if known is None or known[0] is not data:  # of all tasks, once: fewer tasks are a part from its start
            order = evaluation_order(data.index, self.seed)
            ends = [0, *accumulate(len(members) for members in data.index)]
            self._eval_orders[stage] = known = (data, order, ends)
        _, order, ends = known
        return self._serve(stage, self._limited(stage, order[: ends[num_tasks]], num_tasks))

    def _limited(self, stage: Stage, order: Tensor, num_tasks: int) -> Tensor:
        """Bring a share of every task to the front, when the Trainer evaluates only the first batches."""
        names = {"fit": "val", "validate": "val", "test": "test"}
        if self.trainer is None or names.get(self.trainer.state.fn or "") != stage:
            return order
        limit: int | float = getattr(self.trainer, f"limit_{stage}_batches")
        batch_size, plan = self._global_batch(self.eval_batch_size), self._eval_plan(stage, order)
        batches = limited(len(plan), limit)
        rows = batches * batch_size
        if plan.runs is not None and batches < len(plan):  # the share of every task fills whole batches
            rows = max(batches, (batches - num_tasks) * batch_size + num_tasks)
        if not 0 < rows < len(order):
            return order
        if rows < num_tasks:
            rank_zero_warn(
                f"`limit_{stage}_batches={limit}` evaluates {rows} samples of {num_tasks} tasks, so some have none; "
                "raise it, or `eval_batch_size`."
            )
        return order[leading_share([len(members) for members in self.eval_data(stage).index[:num_tasks]], rows)]

    def _serve(self, stage: Stage, order: Tensor) -> StreamLoader:
        plan = self._eval_plan(stage, order)
        if stage not in self._eval_loaders:
            self._eval_loaders[stage] = self._loader(self.eval_data(stage).split, "eval", plan)
        self._eval_loaders[stage].sampler.plan = plan
        return self._eval_loaders[stage]

    def _eval_plan(self, stage: Stage, order: Tensor) -> EvalPlan:
        """Batches of ``(N,)`` positions in this order, each of one task where a method may be told which."""
        runs = None
        if self.task_identity:
            tasks = self.eval_data(stage).task_of[order]
            runs = tuple(torch.unique_consecutive(tasks, return_counts=True)[1].tolist())
        return EvalPlan(order, self._global_batch(self.eval_batch_size), self._world()[0], runs)

    def _loader(
        self, split: Literal["train", "test"], view: Literal["train", "eval"], plan: TrainPlan | EvalPlan
    ) -> StreamLoader:
        dataset = self._dataset(split, view)
        options: dict[str, Any] = {
            "num_workers": self.num_workers,
            "persistent_workers": self.persistent_workers and self.num_workers > 0,
            "pin_memory": torch.cuda.is_available() if self.pin_memory is None else self.pin_memory,
        }
        return StreamLoader(dataset, PlanSampler(plan, *self._world(), augment=view == "train"), **options)

    def _dataset(self, split: Literal["train", "test"], view: Literal["train", "eval"]) -> StreamDataset:
        own = self.train_transform if view == "train" else self.eval_transform
        default = self.source.train_transform if view == "train" else self.source.eval_transform
        transform = default() if own is None else own or None
        argument, collate = f"`{view}_transform`", self.collate_fn or self.source.collate_fn
        hidden = self.layout.hidden if split == "train" else None
        return StreamDataset(self.source, split, transform, self.batch_keys, collate, argument, hidden)

    def batch(self, index: Tensor, view: Literal["train", "eval"] = "train", seed: int = 0, start: int = 0) -> Any:
        """A batch of training samples, on the CPU, made as the training loader makes it.

        Args:
            index: ``(B,)`` positions in the training split.
            view: ``"train"`` for augmented images, ``"eval"`` for the evaluation transform.
            seed: Seeds the augmentation, together with the place in the batch.
            start: Place of the first sample, if this is a process's share of a batch.
        """
        return self._known_dataset(view).__getitems__(self._keys(index, view, seed, start))

    def batch_of_sequence(self, index: Tensor, seed: int, start: int, upcoming: tuple[Tensor, int]) -> Any:
        """A batch as :meth:`batch` gives it, while a worker process begins with the one after it.

        Args:
            index: See :meth:`batch`.
            seed: See :meth:`batch`.
            start: See :meth:`batch`.
            upcoming: ``index`` and ``start`` of the batch that will likely be asked for next, with the next seed.
        """
        view, dataset = self.train_view, self._known_dataset(self.train_view)
        keys = self._keys(index, view, seed, start)
        reader, epoch = self._reader
        if reader is None or reader.dataset is not dataset or not (self.persistent_workers or epoch == self.epoch):
            reader = BatchReader(dataset, 0 if reader is None else reader.vain)
        self._reader = reader, self.epoch
        return reader.read(keys, self._keys(upcoming[0], view, seed + 1, upcoming[1]))

    @property
    def reads_ahead(self) -> bool:
        """Whether :meth:`batch_of_sequence` begins with the batch that comes next, so that it pays to foresee it."""
        reader, _ = self._reader
        return self.num_workers > 0 and (reader is None or reader.hopes)

    def _known_dataset(self, view: Literal["train", "eval"]) -> StreamDataset:
        if view not in self._datasets:
            self._datasets[view] = self._dataset("train", view)
        return self._datasets[view]

    def _keys(self, index: Tensor, view: Literal["train", "eval"], seed: int, start: int) -> list[Key]:
        rows = range(start, start + len(index))
        seeds = [mix_seed(self.seed, seed, row) if view == "train" else None for row in rows]
        return list(zip(index.tolist(), seeds, strict=True))
