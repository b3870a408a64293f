"""Where a stream stands: its tasks, the schedule, which classes are exposed, and the state that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cl.datamodules.exposure import arrived, exposed
from lightning_cl.datamodules.extension import plan_epochs
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.stream_identity import difference, is_prefix
from lightning_cl.datamodules.stream_plan import StreamLayout
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.datamodules.task import Schedule, StreamInfo, Task
from lightning_cl.datamodules.task_loop import TaskLoop
from lightning_cl.namespace import LightningDataModule, rank_zero_warn
from lightning_cl.versions import check_version


class StreamPosition(LightningDataModule):
    """Base of :class:`ContinualDataModule`: everything about tasks and time, nothing about images."""

    scenario: Scenario
    batch_size: int | Sequence[int]
    epochs_per_task: int | Sequence[int]
    updates_per_batch: int
    #: The task that was last trained in a fit, or that a checkpoint stood in.
    last_task: int | None
    _exposed: tuple[int, ...] | None  # in an online stream, once it began
    _layout: StreamLayout | None
    _schedule: Schedule | None
    _driver: TaskLoop | None
    _planned_epochs: tuple[int, ...] | None = None  # of a checkpoint, which win over the arguments
    #: The task that was last asked for, and what it was made of.
    _known_task: tuple[Task, StreamInfo, Schedule] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Lay out the stream."""
        raise NotImplementedError

    def _global_batch(self, batch_size: int) -> int:
        raise NotImplementedError

    def batch_size_of(self, task: int) -> int:
        """Look up the batch size of a task.

        Raises:
            ValueError: If it is not one number, or one per task.
        """
        if isinstance(self.batch_size, int):
            return self.batch_size
        if len(self.batch_size) != self.info.num_tasks:
            raise ValueError(
                f"`batch_size` has {len(self.batch_size)} entries but the stream has {self.info.num_tasks} tasks; give "
                "one number, or one per task."
            )
        return int(self.batch_size[task])

    def plan_schedule(self, known: Schedule | None = None) -> None:
        """Start with ``epochs_per_task``, as if no task had been trained; or after the ``known`` tasks."""
        planned = self._planned()
        self.batch_size_of(0)  # so that a wrong number of sizes is known before the first task
        self._schedule = planned
        if known is not None:  # the stream was extended after a fit
            self._schedule = Schedule((*known.epochs, *planned.epochs[len(known.epochs) :]))
            return
        self.last_task = self._exposed = self._planned_epochs = None

    @property
    def planned(self) -> Schedule:
        """Epochs of every task as planned, also where a task stopped early."""
        planned, known = self._planned().epochs, self._planned_epochs or ()
        return Schedule((*known, *planned[len(known) :]))

    def _planned(self) -> Schedule:
        schedule = plan_epochs(self.epochs_per_task, getattr(self.scenario, "epochs", ()), self.info)
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
    def num_classes(self) -> int:
        """Classes of the whole stream; a module may build its head of so many outputs in its ``setup``."""
        return self.info.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each class, by label."""
        return self.info.class_names

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
        info, schedule, known = self.info, self.schedule, self._known_task
        # Kept, because every step asks for the current one and it takes a look at all tasks before to make it.
        if known is None or known[0].index != index or known[1] is not info or known[2] is not schedule:
            task = Task(
                index,
                info.classes_per_task[index],
                self.layout.new_classes[index],
                info.seen_classes(index),
                schedule.first_epoch(index),
                schedule.epochs[index],
                self.scenario.order,
                info.forgets_per_task[index] if info.forgets_per_task else (),
                index not in info.unlabelled_tasks,
            )
            self._known_task = known = (task, info, schedule)
        return known[0]

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
        return self.task.seen_classes if self._exposed is None else self._exposed

    def expose(self, task: int, batch_idx: int | None) -> bool:
        """The next batch of an online stream is here (``None``: the task begins); whether it brings a class."""
        batches = 0 if batch_idx is None else batch_idx // self.updates_per_batch + 1
        arrivals, rows = self.layout.arrivals[task], batches * self._global_batch(self.batch_size_of(task))
        current, new = self.task_at(task), self.layout.new_classes[task]
        now = len(current.seen_classes) - len(new) + arrived(arrivals, rows)
        if self._exposed is not None and len(self._exposed) == now:  # classes only come, so equally many are the same
            return False
        self._exposed = exposed(set(current.seen_classes).difference(new), arrivals, rows)
        return True

    @property
    def task_index(self) -> int:
        """Current task: in a fit by the schedule and ``trainer.current_epoch``.

        Else the last that was trained, or that a checkpoint stood in; else the last of the stream.
        """
        if self._in_fit:
            return self.schedule.task_at(self.epoch)
        return self.info.num_tasks - 1 if self.last_task is None else self.last_task

    @property
    def epoch(self) -> int:
        """Epoch in which the fit stands; a resumed one stands in that of its checkpoint from the beginning."""
        resumed = None if self._driver is None else self._driver.resumed_epoch
        return resumed if resumed is not None else 0 if self.trainer is None else self.trainer.current_epoch

    @property
    def _in_fit(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == "fit" and self.trainer.state.stage is not None

    @property
    def task(self) -> Task:
        """The current task."""
        return self.task_at(self.task_index)

    @property
    def task_ended(self) -> bool:
        """Whether all batches of the current task are behind, as in the validation of its end; a checkpoint knows."""
        return self._driver is not None and self._driver.ended >= self.task_index

    @property
    def unfinished_task(self) -> int | None:
        """Task in which the last fit stands, or ended before the stream did; ``None``: the stream is trained."""
        driver = self._driver
        return None if driver is None or driver.ended >= self.info.num_tasks - 1 else max(driver.started, 0)

    def table(self) -> StreamTable:
        """The training stream as an artefact: sample, task, position and visible label, with a hash."""
        return self.layout.table

    def shorten(self, task: int, epochs: int) -> None:
        """End ``task`` after ``epochs`` of its epochs; saved with the state."""
        self._schedule = self.schedule.shortened(task, epochs)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """The stream's identity, its planned and its (shortened) schedule, and the task that was trained last."""
        return {
            "version": 1,
            "info": self.info.state_dict(),
            "planned": list(self.planned.epochs),
            "epochs": list(self.schedule.epochs),
            "task": self.task_index if self.last_task is None else self.last_task,
            "exposed": None if self._exposed is None else list(self._exposed),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint stood.

        Raises:
            ValueError: If the checkpoint is of another stream, and not of one that this one was extended from; the
                message shows both.
        """
        check_version(state_dict, 1, "the stream")
        saved = StreamInfo.from_state_dict(state_dict["info"])
        if not is_prefix(saved, self.info):
            raise ValueError(
                f"{difference(saved, self.info)} Use the source, scenario and seed that the checkpoint was made with, "
                "or start without `ckpt_path`."
            )
        planned = self._planned().epochs
        if state_dict["planned"] != list(planned[: saved.num_tasks]):
            rank_zero_warn(
                f"the checkpoint was made with {state_dict['planned']} epochs per task, which wins over "
                f"`epochs_per_task={self.epochs_per_task}`."
            )
        self._planned_epochs = tuple(int(n) for n in state_dict["planned"])
        self._schedule = Schedule((*(int(n) for n in state_dict["epochs"]), *planned[saved.num_tasks :]))
        self.last_task = int(state_dict["task"])
        exposed_then = state_dict.get("exposed")  # missing before online streams
        self._exposed = None if exposed_then is None else tuple(int(c) for c in exposed_then)
        if self._driver is not None and self._in_fit and self.trainer is not None:
            self._driver.fit_schedule(self.trainer)
