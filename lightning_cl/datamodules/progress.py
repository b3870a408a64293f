"""Tasks in the progress bar that a Trainer has anyway, Lightning's Rich or TQDM bar or a subclass of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.table import Column

from lightning_cl.datamodules.task import Task
from lightning_cl.namespace import LightningModule, ProgressBar, RichProgressBar, TQDMProgressBar, Trainer

#: What ``ContinualEvaluation`` logs, and how the bar calls it.
AVERAGE, SHOWN_AS = "class_il/average_accuracy", "avg_acc"
_NAMED, _LONGEST = 3, 24  # classes and letters of their names; more are counted
#: Columns of a terminal that the bar makes do with, and those from which on it also names the classes.
_NARROW, _WIDE = 60, 80


def describe_task(task: Task, num_tasks: int, epoch: int, names: Sequence[str] | None = None) -> str:
    """``"Task 2 of 5 (classes 2, 3), epoch 1 of 3"``: where the run stands, counted from 1.

    Args:
        task: The current task.
        num_tasks: Number of tasks in the stream.
        epoch: Epochs of the task that are over.
        names: Of all classes of the source; without them the text leaves out which classes the task has.
    """
    held = f" ({describe_classes(task.classes, names)})" if names is not None else ""
    where = f"Task {task.index + 1} of {num_tasks}{held}"
    return where if task.epochs == 1 else f"{where}, epoch {epoch + 1} of {task.epochs}"


def describe_classes(classes: tuple[int, ...], names: Sequence[str] = ()) -> str:
    """A few classes by name, or by number where they have no name; many by how many there are."""
    shown = [str(names[c]) if c < len(names) else str(c) for c in classes]
    text = ", ".join(shown)
    if len(shown) > _NAMED or len(text) > _LONGEST:
        return f"{len(shown)} classes"
    return f"{'class' if len(shown) == 1 else 'classes'} {text}"


def show_tasks(trainer: Trainer) -> None:
    """Let the Trainer's progress bar show the tasks of its stream; nothing if it has no bar.

    The bar stays the same object and gets a class of its own, :class:`TaskBar` before the one it had, so that a user
    changes nothing in their Trainer.
    """
    bar = trainer.progress_bar_callback
    if isinstance(bar, ProgressBar) and not isinstance(bar, TaskBar):
        kind: Any = type(bar)
        bar.__class__ = _task_bar(kind)
    console = get_console()
    if isinstance(bar, RichProgressBar) and not (console.is_terminal or console.is_jupyter):
        bar.disable()  # in a file it would be lines of nothing


class TaskBar(ProgressBar):
    """What a progress bar does differently on a stream: it says the task and the average accuracy so far."""

    _described, _text = False, ""  # since the run began
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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a Rich bar off the screen before results are printed there."""
        super().on_train_end(trainer, pl_module)
        own: Any = self
        if isinstance(own, RichProgressBar) and own.progress is not None:
            for bar in own.progress.task_ids:
                own.progress.update(bar, visible=False)
            own.progress.refresh()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The average accuracy, then what the module logs with ``prog_bar``, as far as a Rich bar's line has room."""
        items: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        items.pop("v_num", None)
        if self._average is not None and trainer.state.fn == "fit":
            items = {SHOWN_AS: f"{100 * self._average:.1f}%", **items}
        own: Any = self
        if not isinstance(own, RichProgressBar) or own.progress is None or not self._described:
            return items
        room = own.progress.console.width - len(self._text) - self._taken
        return within(items, room)

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """A Rich bar in one line: the task, a short bar where there is room, and the batches."""
        own: Any = super()
        if type(self).__mro__[2] is not RichProgressBar:
            columns: list[ProgressColumn] = own.configure_columns(trainer)  # somebody chose them
            return columns
        bar = [BarColumn(bar_width=10)] if get_console().width >= _NARROW else []
        return [TextColumn("{task.description}", table_column=Column(no_wrap=True)), *bar, MofNCompleteColumn()]

    @property
    def _taken(self) -> int:
        """Columns of the line besides the description and the metrics."""
        own: Any = self
        batches = len(str(own.total_train_batches))
        return 2 * batches + 3 + (11 if own.progress.console.width >= _NARROW else 0)

    def _remember(self, trainer: Trainer) -> None:
        average = trainer.callback_metrics.get(AVERAGE)
        self._average = self._average if average is None else float(average)

    def _describe(self, trainer: Trainer) -> None:
        stream: Any = trainer.datamodule  # type: ignore[attr-defined]
        task: Task = stream.task
        own: Any = self
        rich = isinstance(own, RichProgressBar) and own.progress is not None
        names = stream.info.class_names if not rich or own.progress.console.width >= _WIDE else None
        text = self._text = describe_task(task, stream.info.num_tasks, trainer.current_epoch - task.first_epoch, names)
        if rich and own.train_progress_bar_id is not None:
            style = f"[{own.theme.description}]" if own.theme.description else ""
            own.progress.update(own.train_progress_bar_id, description=style + text)
            own.refresh()
        elif isinstance(own, TQDMProgressBar):
            own.train_progress_bar.set_description(text)
        self._described = True


def within(items: dict[str, Any], room: int) -> dict[str, Any]:
    """The first metrics that a bar can show as ``name: value`` in so many columns."""
    shown: dict[str, Any] = {}
    for name, value in items.items():
        text = value if isinstance(value, str) else f"{value:.3f}" if isinstance(value, float) else str(value)
        taken = len(f"{name}: {text} ")
        if taken <= room:
            shown[name] = value
            room -= taken
    return shown


def _new(cls: Any) -> Any:
    return cls.__new__(cls)


@functools.cache
def _task_bar(base: type) -> type:
    def as_before(self: Any, protocol: Any) -> Any:
        return (_new, (base,), *object.__reduce_ex__(self, protocol)[2:])

    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    # A copy or a pickle has the class that can be found by its name; the next fit shows tasks again.
    return type(base.__name__, (TaskBar, base), {**names, "__reduce_ex__": as_before})
