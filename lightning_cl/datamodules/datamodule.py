"""One streaming LightningDataModule: a source of images, a scenario for how they arrive, and the schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import default_collate

from lightning_cl.datamodules.driver import StreamDriver
from lightning_cl.datamodules.layout import EvalBatch, EvalData, Stage, StreamLayout, lay_out
from lightning_cl.datamodules.loader import PlanSampler, StreamDataset, StreamLoader
from lightning_cl.datamodules.online import Joined, exposed, joint_weight
from lightning_cl.datamodules.sampling import EvalPlan, TrainBatch, TrainPlan, evaluation_order, mix_seed
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.datamodules.task import Schedule, StreamInfo, Task


class ContinualDataModule(LightningDataModule):
    """A stream of tasks as a LightningDataModule; one ``trainer.fit`` runs all of it.

    Task ``t`` covers ``epochs_per_task`` epochs; the schedule and ``trainer.current_epoch`` alone decide the current
    task. ``trainer.max_epochs`` follows from the schedule when it was left unset (or is -1); a smaller value wins.

    There is one validation loader, over the evaluation data of all tasks seen so far, and one test loader over all
    tasks. Augmentation is seeded per sample and epoch: the same for any number of workers and processes.

    Args:
        source: Which images.
        scenario: How they arrive.
        batch_size: Samples per optimiser step **over all processes** (a result does not depend on how many there
            are). With ``per_device=True``, samples per process.
        epochs_per_task: One number, or one per task.
        updates_per_batch: In an online stream, how many optimiser steps are made on every batch, each with fresh
            augmentation (``online_iter`` in the code of Si-Blurry).
        eval_batch_size: As ``batch_size``, for evaluation; defaults to ``batch_size``.
        per_device: Read both batch sizes as samples per process.
        seed: Decides class order (unless the scenario has its own seed), sample order and augmentation.
        val_split: Fraction of the training data of every class to validate on instead of the test split.
        train_transform: Replaces the source's training transform (``False``: none).
        eval_transform: Replaces the source's evaluation transform (``False``: none).
        batch_keys: Names of image and label, for models that take dictionaries instead of tuples.
        drop_last: Leave out a last training batch that is not full.
        evaluate_on: Validate on the tasks ``"seen"`` so far, or on ``"all"`` (needed for forward transfer).
        early_stopping: What Lightning's ``EarlyStopping`` ends: the whole ``"stream"``, or the current ``"task"``,
            one epoch after it says so, with its patience counted anew for every task.
        num_workers: Worker processes per loader.
        persistent_workers: Keep the workers over the whole stream.
        pin_memory: Copy batches to pinned memory; by default when a GPU is used.
        collate_fn: Replaces the source's way to make a batch of items (``torch.utils.data.default_collate``).

    Raises:
        ValueError: For a batch size below 1; in ``setup`` for a scenario that does not fit the source, a schedule
            that does not match, or a ``max_epochs`` in conflict with it.
    """

    def __init__(
        self,
        source: Source,
        scenario: Scenario,
        batch_size: int = 64,
        epochs_per_task: int | Sequence[int] = 1,
        updates_per_batch: int = 1,
        eval_batch_size: int | None = None,
        per_device: bool = False,
        seed: int = 0,
        val_split: float = 0.0,
        train_transform: Callable[[Any], Any] | Literal[False] | None = None,
        eval_transform: Callable[[Any], Any] | Literal[False] | None = None,
        batch_keys: tuple[str, str] | None = None,
        drop_last: bool = False,
        evaluate_on: Literal["seen", "all"] = "seen",
        early_stopping: Literal["stream", "task"] = "stream",
        num_workers: int = 0,
        persistent_workers: bool = False,
        pin_memory: bool | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; give a number of samples of at least 1.")
        if updates_per_batch < 1:
            raise ValueError(f"`updates_per_batch` is {updates_per_batch}; give a number of steps of at least 1.")
        for name, choice, known in (
            ("evaluate_on", evaluate_on, ("seen", "all")),
            ("early_stopping", early_stopping, ("stream", "task")),
        ):
            if choice not in known:
                raise ValueError(f'`{name}` is {choice!r}; give "{known[0]}" or "{known[1]}".')
        if batch_keys is not None and (isinstance(batch_keys, str) or len(batch_keys) != 2):
            raise ValueError(f'`batch_keys` is {batch_keys!r}; name image and label, as in ("pixel_values", "labels").')
        self.source, self.scenario = source, scenario
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.epochs_per_task, self.per_device, self.seed, self.val_split = epochs_per_task, per_device, seed, val_split
        self.updates_per_batch = updates_per_batch
        self.train_transform, self.eval_transform, self.batch_keys = train_transform, eval_transform, batch_keys
        self.drop_last, self.evaluate_on, self.early_stopping = drop_last, evaluate_on, early_stopping
        self.num_workers, self.persistent_workers = num_workers, persistent_workers
        self.pin_memory, self.collate_fn = pin_memory, collate_fn
        #: Serve training images with the evaluation transform (methods that only take statistics ask for it).
        self.train_view: Literal["train", "eval"] = "train"
        #: The task that was last trained in a fit, or that a checkpoint stood in.
        self.last_task: int | None = None
        #: Rows that replay added to the current training batch.
        self.joined: Joined | None = None
        self._exposed: tuple[int, ...] | None = None  # in an online stream, once it began
        self._layout: StreamLayout | None = None
        self._schedule: Schedule | None = None
        self._driver: StreamDriver | None = None
        self._train_loader: StreamLoader | None = None
        self._eval_loaders: dict[Stage, StreamLoader] = {}
        self._orders: dict[str, tuple[Any, Tensor]] = {}
        self._datasets: dict[str, StreamDataset] = {}
        #: What the loaders serve now: the task of "train", the number of tasks of "val" and "test".
        self.loaded: dict[str, int] = {}

    # ------------------------------------------------------------------ the plan

    def prepare_data(self) -> None:
        """Download the source, on one process."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Lay out the stream (once) and, for ``fit``, bind it to the Trainer."""
        if self._layout is None:
            self.source.setup()
            self._layout = lay_out(self.source, self.scenario, self.seed, self.val_split)
            self.plan_schedule()
        # Another run may have other processes, or want other views of the images.
        self._train_loader, self._eval_loaders, self._orders, self.loaded = None, {}, {}, {}
        self._datasets, self.joined = {}, None
        if stage == "fit" and self.trainer is not None:
            self._driver = StreamDriver.install(self, self.trainer)

    def plan_schedule(self) -> None:
        """Start with ``epochs_per_task``, as if no task had been trained."""
        self._schedule = self._planned()
        self.last_task = self._exposed = None

    def _planned(self) -> Schedule:
        schedule = Schedule.build(self.epochs_per_task, self.info.num_tasks)
        if self.scenario.order == "stream" and set(schedule.epochs) != {1}:
            raise ValueError(
                f"{type(self.scenario).__name__} is an online stream, one ordered pass, but `epochs_per_task` is "
                f"{self.epochs_per_task}; set `epochs_per_task=1` (`updates_per_batch` trains on every batch more "
                "than once)."
            )
        if self.updates_per_batch > 1 and not self.online:
            raise ValueError(
                f"`updates_per_batch` is {self.updates_per_batch}, but {type(self.scenario).__name__} is no online "
                "stream: its tasks are shuffled anew in every epoch; set `epochs_per_task` instead."
            )
        return schedule

    @property
    def layout(self) -> StreamLayout:
        """Which samples belong to which task."""
        if self._layout is None:
            self.setup()
        assert self._layout is not None
        return self._layout

    @property
    def info(self) -> StreamInfo:
        """All that a method may ask of the stream."""
        return self.layout.info

    @property
    def schedule(self) -> Schedule:
        """Epochs of every task; shorter than planned where a task stopped early."""
        assert self.layout is not None
        assert self._schedule is not None
        return self._schedule

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks of the stream."""
        return tuple(self.task_at(index) for index in range(self.info.num_tasks))

    def task_at(self, index: int) -> Task:
        """Task ``index`` with its place in the schedule."""
        info, schedule = self.info, self.schedule
        return Task(
            index,
            info.classes_per_task[index],
            self.layout.new_classes[index],
            info.seen_classes(index),
            schedule.first_epoch(index),
            schedule.epochs[index],
            self.scenario.order,
        )

    @property
    def online(self) -> bool:
        """Whether samples arrive once, in a fixed order."""
        return self.scenario.order == "stream"

    @property
    def exposed_classes(self) -> tuple[int, ...]:
        """Sorted classes that a learner may answer with now.

        In an online stream those of which a sample has arrived, the current batch included; else those of the tasks
        seen so far. It follows from the plan, so all processes agree without a word.
        """
        return self.info.seen_classes(self.task_index) if self._exposed is None else self._exposed

    def expose(self, task: int, batch_idx: int | None) -> bool:
        """The next batch of an online stream is here (``None``: the task begins); whether it brings a class."""
        before = len(self.exposed_classes) if self._exposed is not None else -1
        earlier = self.info.seen_classes(task - 1) if task else ()
        rows = (
            0 if batch_idx is None else (batch_idx // self.updates_per_batch + 1) * self._global_batch(self.batch_size)
        )
        self._exposed = exposed(earlier, self.layout.arrivals[task], rows)
        return len(self._exposed) != before

    @property
    def task_index(self) -> int:
        """Current task: in a fit by the schedule and ``trainer.current_epoch``.

        Else the last that was trained, or that a checkpoint stood in; else the last of the stream.
        """
        if self._in_fit and self.trainer is not None:
            return self.schedule.task_at(self.trainer.current_epoch)
        return self.info.num_tasks - 1 if self.last_task is None else self.last_task

    @property
    def _in_fit(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == "fit" and self.trainer.state.stage is not None

    @property
    def task(self) -> Task:
        """The current task."""
        return self.task_at(self.task_index)

    def table(self) -> StreamTable:
        """The training stream as an artefact: sample, task, position and visible label, with a hash."""
        return self.layout.table

    def shorten(self, task: int, epochs: int) -> None:
        """End ``task`` after ``epochs`` of its epochs; saved with the state."""
        self._schedule = self.schedule.shortened(task, epochs)

    # ------------------------------------------------------------------ loaders

    def train_dataloader(self) -> StreamLoader:
        """Batches of the current task; the same loader object for all tasks."""
        task, epoch = self.task_index, 0 if self.trainer is None else self.trainer.current_epoch
        plan = self._train_plan(task, self.batch_size, updates=self.updates_per_batch)
        if len(plan) == 0:
            raise ValueError(
                f"task {task} has {len(plan.index)} training samples, fewer than the global batch size "
                f"{plan.batch_size}, and `drop_last=True` leaves no batch; lower `batch_size` or set `drop_last=False`."
            )
        if self._train_loader is None:
            self._train_loader = self._loader("train", self.train_view, plan)
        self._train_loader.sampler.plan = plan
        self._train_loader.sampler.set_epoch(epoch)
        if self._in_fit:
            self._train_loader.on_start = self._continue
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
        return self.info.num_tasks if self.evaluate_on == "all" else self.task_index + 1

    def train_loader_for(
        self, task_index: int, transform: Literal["train", "eval"] = "eval", epoch: int = 0
    ) -> Iterable[Any]:
        """One pass over a task's training samples, shared out over the ranks.

        Args:
            task_index: Which task.
            transform: ``"eval"`` for statistics, ``"train"`` for augmented images.
            epoch: Seeds order and augmentation of the pass.
        """
        loader = self._loader("train", transform, self._train_plan(task_index, self.eval_batch_size, drop_last=False))
        loader.sampler.set_epoch(epoch)
        return loader

    def _world(self) -> tuple[int, int]:
        trainer = self.trainer
        return (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)

    def _train_plan(self, task: int, batch_size: int, drop_last: bool | None = None, updates: int = 1) -> TrainPlan:
        total, drop = self._global_batch(batch_size), self.drop_last if drop_last is None else drop_last
        return TrainPlan(self.layout.train_index[task], total, drop, not self.online, self.seed, updates)

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
        return self._serve(stage, evaluation_order(self.eval_data(stage).index[:num_tasks], self.seed))

    def _serve(self, stage: Stage, order: Tensor) -> StreamLoader:
        plan = EvalPlan(order, self._global_batch(self.eval_batch_size), self._world()[0])
        if stage not in self._eval_loaders:
            self._eval_loaders[stage] = self._loader(self.eval_data(stage).split, "eval", plan)
        self._eval_loaders[stage].sampler.plan = plan
        return self._eval_loaders[stage]

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
        return StreamDataset(self.source, split, transform, self.batch_keys, self.collate_fn or default_collate)

    def batch(self, index: Tensor, view: Literal["train", "eval"] = "train", seed: int = 0) -> Any:
        """A batch of training samples, on the CPU, made as the training loader makes it.

        Args:
            index: ``(B,)`` positions in the training split.
            view: ``"train"`` for augmented images, ``"eval"`` for the evaluation transform.
            seed: Seeds the augmentation, together with the place in the batch.
        """
        if view not in self._datasets:
            self._datasets[view] = self._dataset("train", view)
        seeds = [mix_seed(self.seed, seed, row) if view == "train" else None for row in range(len(index))]
        return self._datasets[view].__getitems__(list(zip(index.tolist(), seeds, strict=True)))

    # ------------------------------------------------------------------ what a batch holds

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
        """What this process's mean loss must be multiplied by, so that DDP's mean is that of the global batch."""
        batch, rows = self.train_batch(batch_idx), self.train_batch_size(batch_idx)
        return joint_weight(batch, rows, self.joined, self._world()[0])

    def train_classes(self, batch_idx: int) -> list[int]:
        """Sorted classes of training batch ``batch_idx`` over all processes, those that replay adds included."""
        labels = self.source.train_labels[self.train_rows(batch_idx)]
        if self.joined is not None:
            labels = torch.cat([labels, self.joined.labels.to(labels)])
        classes: list[int] = labels.unique().tolist()
        return classes

    def eval_data(self, stage: Stage) -> EvalData:
        """The evaluation samples of a stage."""
        return self.layout.evaluation[stage]

    def eval_batch(self, batch_idx: int, stage: Stage = "val") -> EvalBatch:
        """Samples of this rank in evaluation batch ``batch_idx``, in the order of the batch; padding left out."""
        sampler = self._eval_loaders[stage].sampler
        batch = sampler.batch(self._order(stage, sampler), batch_idx)
        return self.eval_data(stage).batch(batch.index[: batch.real])

    def _order(self, stage: str, sampler: PlanSampler) -> Tensor:
        key = (sampler.plan, sampler.epoch)
        known = self._orders.get(stage)
        if known is None or known[0][0] is not key[0] or known[0][1] != key[1]:
            self._orders[stage] = known = (key, sampler.order())
        return known[1]

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """The stream's identity, its planned and its (shortened) schedule, and the task that was trained last."""
        return {
            "version": 1,
            "info": self.info.state_dict(),
            "planned": list(self._planned().epochs),
            "epochs": list(self.schedule.epochs),
            "task": self.task_index if self.last_task is None else self.last_task,
            "exposed": None if self._exposed is None else list(self._exposed),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint stood.

        Raises:
            ValueError: If the checkpoint is of another stream; the message shows both.
        """
        saved = StreamInfo.from_state_dict(state_dict["info"])
        if saved.fingerprint != self.info.fingerprint:
            raise ValueError(
                f"the checkpoint is of another stream: {_describe(saved)}, but this stream is {_describe(self.info)}. "
                "Use the source, scenario and seed that the checkpoint was made with, or start without `ckpt_path`."
            )
        if state_dict["planned"] != list(self._planned().epochs):
            rank_zero_warn(
                f"the checkpoint was made with {state_dict['planned']} epochs per task, which wins over "
                f"`epochs_per_task={self.epochs_per_task}`."
            )
        self._schedule = Schedule(tuple(int(n) for n in state_dict["epochs"]))
        self.last_task = int(state_dict["task"])
        exposed_then = state_dict.get("exposed")  # missing before online streams
        self._exposed = None if exposed_then is None else tuple(int(c) for c in exposed_then)
        if self._driver is not None and self._in_fit and self.trainer is not None:
            self._driver.fit_schedule(self.trainer)


def _describe(info: StreamInfo) -> str:
    return f"{info.num_tasks} tasks, {info.num_classes} classes, hash {info.fingerprint[:12]}"
