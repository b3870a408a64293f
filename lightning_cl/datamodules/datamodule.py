"""One streaming LightningDataModule: a source of images, a scenario for how they arrive, and the schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from lightning_cl.checkpoint_file import read_as_data
from lightning_cl.datamodules.argument_kinds import as_count, as_counts, check_function, check_number
from lightning_cl.datamodules.batch_form import BatchKeys, check_batch_keys
from lightning_cl.datamodules.batch_hooks import install_batch_hooks
from lightning_cl.datamodules.exposure import Joined
from lightning_cl.datamodules.extension import ExtendedScenario, lay_out_stream
from lightning_cl.datamodules.loader import StreamLoader
from lightning_cl.datamodules.loaders import StreamLoaders
from lightning_cl.datamodules.main_arguments import check_scenario, check_source
from lightning_cl.datamodules.module_setup import ModuleSetup
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.extended import ExtendedSource, Matching
from lightning_cl.datamodules.stream_dataset import StreamDataset
from lightning_cl.datamodules.stream_plan import EvalData, Stage, StreamLayout
from lightning_cl.datamodules.task import Schedule
from lightning_cl.datamodules.task_loop import TaskLoop
from lightning_cl.datamodules.trainer_checks import callbacks_of, refuse_wrong_callbacks
from lightning_cl.namespace import Trainer, refuse_other_namespace


class ContinualDataModule(StreamLoaders):
    """A stream of tasks as a LightningDataModule; one ``trainer.fit`` runs all of it.

    Task ``t`` covers ``epochs_per_task`` epochs; the schedule and ``trainer.current_epoch`` alone decide the current
    task. ``trainer.max_epochs`` follows from the schedule when it was left unset (or is -1); a smaller value wins.

    There is one validation loader, over the evaluation data of all tasks seen so far, and one test loader over all
    tasks. Augmentation is seeded per sample and epoch: the same for any number of workers and processes.

    Args:
        source: Which images.
        scenario: How they arrive.
        batch_size: Samples per optimiser step **over all processes** (a result does not depend on how many there
            are). With ``per_device=True``, samples per process. One number, or one per task.
        epochs_per_task: One number, or one per task.
        eval_batch_size: As ``batch_size``, for evaluation; defaults to ``batch_size``, the largest of several.
        per_device: Read both batch sizes as samples per process.
        seed: Decides class order (unless the scenario has its own seed), sample order and augmentation.
        val_split: Fraction of the training data of every class to validate on instead of the test split.
        train_transform: Replaces the source's training transform (``False``: none).
        eval_transform: Replaces the source's evaluation transform (``False``: none).
        batch_keys: Places of inputs and labels in a batch: names of image and label, for models that take dictionaries
            instead of tuples; names that the items' dictionaries or named tuples have; several inputs, as in
            ``(("input_ids", "attention_mask"), "labels")``; or positions, as in ``(1, 2)`` for ``(index, image,
            label)``. The usual names and forms are found without it. A transform changes the first of the inputs.
        drop_last: Leave out a last training batch that is not full.
        evaluate_on: Validate on the tasks ``"seen"`` so far, or on ``"all"`` (needed for forward transfer).
        task_identity: Tell the task of every evaluation batch to methods that ask for it (task-incremental learning);
            every evaluation batch is then of one task.
        early_stopping: What Lightning's ``EarlyStopping`` ends: the whole ``"stream"``, or the current ``"task"``,
            one epoch after it says so, with its patience counted anew for every task.
        reduce_on_plateau: Over what Lightning counts a ``ReduceLROnPlateau`` schedule: the whole ``"stream"``, whose
            validation becomes harder with every task, so that the rate decays from task to task; or each ``"task"``
            anew, from the rate that it began with.
        num_workers: Worker processes per loader.
        persistent_workers: Keep the workers over the whole stream; they end with the run.
        pin_memory: Copy batches to pinned memory; by default when a GPU is used.
        collate_fn: Replaces the source's way to make a batch of items (``torch.utils.data.default_collate``).
        updates_per_batch: In an online stream, how many optimiser steps are made on every batch, each with fresh
            augmentation (``online_iter`` in the code of Si-Blurry).
        replay_share: Share of every epoch, from the second task on, that are samples of earlier tasks, drawn anew each
            epoch, in the place of as many of the task's own, so that the number of steps stays (compute-equivalent
            replay, arXiv:2403.08763: 0.05 for data alike, 0.25 to 0.5 for data far apart). It needs access to all
            earlier data; with a limited memory use ``ExperienceReplay``. In [0, 1).

    Raises:
        ValueError: For an argument of another kind, or a batch size below 1; in ``setup`` for a scenario that does not
            fit the source, a schedule that does not match, or a ``max_epochs`` in conflict with it.
    """

    def __init__(
        self,
        source: Source,
        scenario: Scenario,
        batch_size: int | Sequence[int] = 64,
        epochs_per_task: int | Sequence[int] = 1,
        eval_batch_size: int | None = None,
        per_device: bool = False,
        seed: int = 0,
        val_split: float = 0.0,
        train_transform: Callable[[Any], Any] | Literal[False] | None = None,
        eval_transform: Callable[[Any], Any] | Literal[False] | None = None,
        batch_keys: BatchKeys | None = None,
        drop_last: bool = False,
        evaluate_on: Literal["seen", "all"] = "seen",
        early_stopping: Literal["stream", "task"] = "stream",
        num_workers: int = 0,
        persistent_workers: bool = False,
        pin_memory: bool | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        updates_per_batch: int = 1,
        reduce_on_plateau: Literal["stream", "task"] = "stream",
        task_identity: bool = False,
        replay_share: float = 0.0,
    ) -> None:
        super().__init__()
        check_source(source)
        check_scenario(scenario)
        batch_size, epochs_per_task = (
            as_counts("batch_size", batch_size),
            as_counts("epochs_per_task", epochs_per_task),
        )
        seed, num_workers = as_count("seed", seed), as_count("num_workers", num_workers)
        updates_per_batch = as_count("updates_per_batch", updates_per_batch)
        eval_batch_size = None if eval_batch_size is None else as_count("eval_batch_size", eval_batch_size)
        check_number("val_split", val_split)
        check_number("replay_share", replay_share)
        if not 0 <= replay_share < 1:
            raise ValueError(f"`replay_share` is {replay_share}; give a share of old samples in [0, 1).")
        check_function("train_transform", train_transform, ", or False for none")
        check_function("eval_transform", eval_transform, ", or False for none")
        check_function("collate_fn", collate_fn)
        sizes = (batch_size,) if isinstance(batch_size, int) else tuple(batch_size)
        named = (*(("batch_size", size) for size in sizes), ("eval_batch_size", eval_batch_size))
        for name, value in named:
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; give a number of samples of at least 1.")
        if updates_per_batch < 1:
            raise ValueError(f"`updates_per_batch` is {updates_per_batch}; give a number of steps of at least 1.")
        for name, choice, known in (
            ("evaluate_on", evaluate_on, ("seen", "all")),
            ("early_stopping", early_stopping, ("stream", "task")),
            ("reduce_on_plateau", reduce_on_plateau, ("stream", "task")),
        ):
            if choice not in known:
                raise ValueError(f'`{name}` is {choice!r}; give "{known[0]}" or "{known[1]}".')
        if batch_keys is not None:
            check_batch_keys(batch_keys)
        self.source, self.scenario = source, scenario
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or max(sizes, default=1)
        self.epochs_per_task, self.per_device, self.seed, self.val_split = epochs_per_task, per_device, seed, val_split
        self.updates_per_batch = updates_per_batch
        self.train_transform, self.eval_transform, self.batch_keys = train_transform, eval_transform, batch_keys
        self.drop_last, self.evaluate_on, self.early_stopping = drop_last, evaluate_on, early_stopping
        self.task_identity, self.replay_share = task_identity, replay_share
        self.num_workers, self.persistent_workers = num_workers, persistent_workers
        self.pin_memory, self.collate_fn, self.reduce_on_plateau = pin_memory, collate_fn, reduce_on_plateau
        #: Serve training images with the evaluation transform (methods that only take statistics ask for it).
        self.train_view: Literal["train", "eval"] = "train"
        #: The task that was last trained in a fit, or that a checkpoint stood in.
        self.last_task: int | None = None
        #: Rows that replay added to the current training batch.
        self.joined: Joined | None = None
        self._exposed: tuple[int, ...] | None = None  # in an online stream, once it began
        self._eval_orders: dict[Stage, tuple[EvalData, Tensor, list[int]]] = {}
        self._layout: StreamLayout | None = None
        self._schedule: Schedule | None = None
        self._driver: TaskLoop | None = None
        self._train_loader: StreamLoader | None = None
        self._eval_loaders: dict[Stage, StreamLoader] = {}
        self._orders: dict[str, tuple[Any, Tensor]] = {}
        self._datasets: dict[str, StreamDataset] = {}
        self._reader = None, 0
        #: What the loaders serve now: the task of "train", the number of tasks of "val" and "test".
        self.loaded: dict[str, int] = {}

    @property
    def trainer(self) -> Trainer | None:
        """The Trainer that this stream was handed to."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        # Here, because Lightning asks every callback for its logging before anything of a stream is called.
        self._trainer = trainer
        refuse_other_namespace(trainer)
        if isinstance(trainer, Trainer):
            refuse_wrong_callbacks(trainer)

    # ------------------------------------------------------------------ the plan

    def prepare_data(self) -> None:
        """Download the source, on one process."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Lay out the stream (once) and, for ``fit``, bind it to the Trainer."""
        if self.trainer is not None:
            read_as_data(self.trainer.strategy)
        if self._layout is None:
            self.source.setup()
            known = self._schedule  # of the stream that was extended
            self._layout = lay_out_stream(self.source, self.scenario, self.seed, self.val_split)
            self.plan_schedule(known)
        # Another run may have other processes, or want other views of the images.
        self._train_loader, self._eval_loaders, self._orders, self.loaded = None, {}, {}, {}
        self._datasets, self._reader, self.joined, self.kept_back = {}, (None, 0), None, 0.0
        install_batch_hooks(self)
        if self.replay_share and self.online:
            raise ValueError(
                f"`replay_share={self.replay_share}` mixes samples of earlier tasks into a task's epochs, but this "
                "stream is one ordered pass; use a scenario with tasks, or `ExperienceReplay`."
            )
        if stage == "fit" and self.trainer is not None:
            self._driver = TaskLoop.install(self, self.trainer)
            for task in range(self.info.num_tasks if self.drop_last else 0):
                self._plan_of(task)  # every task has a batch, or the run would end in the middle
        if self.trainer is not None and self.trainer.lightning_module is not None:
            ModuleSetup.install(callbacks_of(self.trainer), self.trainer.lightning_module)

    def teardown(self, stage: str) -> None:
        """End the worker processes."""
        self._reader = None, 0
        for loader in (self._train_loader, *self._eval_loaders.values()):
            if loader is not None:
                loader.end_workers()

    def on_exception(self, exception: BaseException) -> None:
        """End the worker processes of a run that failed."""
        self.teardown("fit")

    def extend(
        self,
        source: Source,
        scenario: Scenario,
        epochs_per_task: int | Sequence[int] | None = None,
        classes: Matching = "new",
    ) -> None:
        """Add tasks behind the existing ones; nothing that was there changes: samples, labels, order, evaluation.

        A run that has ended, or was interrupted, goes on with the new tasks: build the stream as for the run, extend
        it, build the module with as many outputs as there are classes then, and call
        ``trainer.fit(module, datamodule=stream, ckpt_path=...)`` with a checkpoint of the shorter stream.

        Args:
            source: Images of the new tasks; images must have the same size, each source has its own transforms.
            scenario: How they arrive; class-incremental, as the stream's own.
            epochs_per_task: For the new tasks, one number or one per task; ``None``: the same number as before.
            classes: ``"new"``: all classes of ``source`` are new, their labels count on behind the old ones;
                ``"by_name"``: a class with the name of an old one is that class.

        Raises:
            ValueError: If a scenario is not class-incremental or ``classes`` is unknown; in ``setup`` as for any
                stream.
        """
        if classes not in ("new", "by_name"):
            raise ValueError(f'`classes` is {classes!r}; give "new" or "by_name".')
        check_source(source)
        check_scenario(scenario)
        epochs_per_task = None if epochs_per_task is None else as_counts("epochs_per_task", epochs_per_task)
        self.scenario = ExtendedScenario.behind(self.scenario, scenario, epochs_per_task)
        self.source = ExtendedSource.behind(self.source, source, classes)
        self._layout = None
