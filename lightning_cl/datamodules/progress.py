"""Tasks in the progress bar that a Trainer has anyway, Lightning's Rich or TQDM bar or a subclass of them."""

from __future__ import annotations

import functools
from typing import Any

from lightning_cl.datamodules.task import Task
from lightning_cl.namespace import LightningModule, ProgressBar, RichProgressBar, TQDMProgressBar, Trainer

#: What ``ContinualEvaluation`` logs, and how the bar calls it.
AVERAGE, SHOWN_AS = "class_il/average_accuracy", "avg_acc"
_NAMED = 3  # classes; more are counted


def describe_task(task: Task, num_tasks: int, epoch: int) -> str:
    """``"Task 1/4 (classes 2, 3), epoch 0/2"``: where the run stands; last numbers behind the slashes.

    Counted from 0, as in the accuracy matrix and in Lightning's own ``Epoch 0/9``.

    Args:
        task: The current task.
        num_tasks: Number of tasks in the stream.
        epoch: Epochs of the task that are over.
    """
    where = f"Task {task.index}/{num_tasks - 1} ({describe_classes(task.classes)})"
    return where if task.epochs == 1 else f"{where}, epoch {epoch}/{task.epochs - 1}"


def describe_classes(classes: tuple[int, ...]) -> str:
    """A few classes by number, neighbours as a range, others by how many there are."""
    if len(classes) == 1:
        return f"class {classes[0]}"
    if len(classes) <= _NAMED:
        return f"classes {', '.join(map(str, classes))}"
    if classes[-1] - classes[0] + 1 == len(classes):
        return f"classes {classes[0]}-{classes[-1]}"
    return f"{len(classes)} classes"


def show_tasks(trainer: Trainer) -> None:
    """Let the Trainer's progress bar show the tasks of its stream; nothing if it has no bar.

    The bar stays the same object and gets a class of its own, :class:`TaskBar` before the one it had, so that a user
    changes nothing in their Trainer.
    """
    bar = trainer.progress_bar_callback
    if isinstance(bar, ProgressBar) and not isinstance(bar, TaskBar):
        kind: Any = type(bar)
        bar.__class__ = _task_bar(kind)


class TaskBar(ProgressBar):
    """What a progress bar does differently on a stream: it says the task and the average accuracy so far."""

    _described = False  # since the run began
    _average: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start without an accuracy; a resumed run knows one."""
        self._described, self._average = False, None
        self._remember(trainer)
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the run stands."""
        super().on_train_epoch_start(trainer, pl_module)
        self._describe(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say it also in an epoch that did not start here."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not self._described:
            self._describe(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the average accuracy once, not at every step."""
        if not trainer.sanity_checking:
            self._remember(trainer)
        super().on_validation_end(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The bar's own, and the average accuracy."""
        items: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        if self._average is not None and trainer.state.fn == "fit":
            items[SHOWN_AS] = f"{100 * self._average:.1f}%"
        return items

    def _remember(self, trainer: Trainer) -> None:
        average = trainer.callback_metrics.get(AVERAGE)
        self._average = self._average if average is None else float(average)

    def _describe(self, trainer: Trainer) -> None:
        stream: Any = trainer.datamodule  # type: ignore[attr-defined]
        task: Task = stream.task
        text = describe_task(task, stream.info.num_tasks, trainer.current_epoch - task.first_epoch)
        own: Any = self
        if isinstance(own, RichProgressBar) and own.progress is not None and own.train_progress_bar_id is not None:
            style = f"[{own.theme.description}]" if own.theme.description else ""
            own.progress.update(own.train_progress_bar_id, description=style + text)
            own.refresh()
        elif isinstance(own, TQDMProgressBar):
            own.train_progress_bar.set_description(text)
        self._described = True


def _new(cls: Any) -> Any:
    return cls.__new__(cls)


@functools.cache
def _task_bar(base: type) -> type:
    def as_before(self: Any, protocol: Any) -> Any:
        return (_new, (base,), *object.__reduce_ex__(self, protocol)[2:])

    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    # A copy or a pickle has the class that can be found by its name; the next fit shows tasks again.
    return type(base.__name__, (TaskBar, base), {**names, "__reduce_ex__": as_before})
