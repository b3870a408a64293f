"""What a stream tells about itself: :class:`Task`, :class:`StreamInfo` and the epoch :class:`Schedule`."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Literal

from lightning_cl.datamodules.superclasses import level_of_each
from lightning_cl.versions import check_version

Order = Literal["shuffled", "stream"]
#: What stands in a training batch in the place of a label that a stream does not give.
HIDDEN_LABEL = -1
#: Class names of a source whose samples have no class: one that stands for all, so that they can be counted.
NO_CLASSES = ("",)


@dataclass(frozen=True)
class Task:
    """One task of a stream; ids, classes and epochs count from 0.

    Attributes:
        index: Position in the stream, ``0 .. num_tasks - 1``.
        classes: Sorted class ids that have training samples in this task.
        new_classes: The part of ``classes`` that no earlier task held.
        seen_classes: Sorted class ids exposed up to and including this task.
        first_epoch: Value of ``trainer.current_epoch`` in this task's first epoch.
        epochs: Number of epochs, at least 1.
        order: ``"shuffled"`` anew every epoch, or ``"stream"``: one ordered pass that is never shuffled.
        forgets: Sorted class ids that this task asks to forget, part of ``classes``; its other samples are retained.
        labelled: Whether training batches have labels; without them ``classes`` are those known before.
    """

    index: int
    classes: tuple[int, ...]
    new_classes: tuple[int, ...]
    seen_classes: tuple[int, ...]
    first_epoch: int
    epochs: int
    order: Order = "shuffled"
    forgets: tuple[int, ...] = ()
    labelled: bool = True

    @property
    def old_classes(self) -> tuple[int, ...]:
        """Sorted class ids exposed before this task: those of ``seen_classes`` that are not new."""
        return tuple(c for c in self.seen_classes if c not in set(self.new_classes))

    @property
    def last_epoch(self) -> int:
        """Value of ``trainer.current_epoch`` in the task's last epoch (inclusive)."""
        return self.first_epoch + self.epochs - 1


@dataclass(frozen=True)
class StreamInfo:
    """All that a method may ask of a stream.

    Labels are never remapped: column ``c`` of a head is class ``c`` of the source.

    Attributes:
        num_tasks: Number of tasks, at least 1.
        num_classes: Number of classes over the whole stream; labels are ``0 .. num_classes - 1``.
        class_names: One name per class, indexed by label.
        classes_per_task: For each task the sorted class ids that it holds.
        fingerprint: Hexadecimal SHA-256 of the stream (:attr:`StreamTable.hash`), the same on every machine.
        extended_from: Number of tasks and fingerprint of every shorter stream that this one was extended from,
            shortest first; empty for a stream as it was planned.
        forgets_per_task: For each task the sorted class ids that it asks to forget; empty if no task does.
        unlabelled_tasks: Tasks whose training batches have no labels.
        levels: The label tree, as :attr:`Source.levels`; empty: there are no superclasses.
    """

    num_tasks: int
    num_classes: int
    class_names: tuple[str, ...]
    classes_per_task: tuple[tuple[int, ...], ...]
    fingerprint: str
    extended_from: tuple[tuple[int, str], ...] = ()
    forgets_per_task: tuple[tuple[int, ...], ...] = ()
    unlabelled_tasks: tuple[int, ...] = ()
    levels: tuple[tuple[int, ...], ...] = ()

    @property
    def has_classes(self) -> bool:
        """Whether samples have classes; else all are counted as class 0, which is no output of a module."""
        return self.class_names != NO_CLASSES

    @property
    def planned_tasks(self) -> int:
        """Number of tasks before the stream was ever extended; what is divided among the tasks goes by it."""
        return self.extended_from[0][0] if self.extended_from else self.num_tasks

    @property
    def repeated_classes(self) -> list[int]:
        """Sorted class ids that several tasks hold."""
        held = Counter(c for classes in self.classes_per_task for c in classes)
        return sorted(c for c, tasks in held.items() if tasks > 1)

    @cached_property
    def class_levels(self) -> tuple[int, ...]:
        """Level of the label tree that each class is at, 0 being the coarsest; empty: there is no tree."""
        return level_of_each(self.levels)

    def seen_classes(self, task: int) -> tuple[int, ...]:
        """Sorted class ids exposed up to and including ``task``."""
        return tuple(sorted({c for held in self.classes_per_task[: task + 1] for c in held}))

    def state_dict(self) -> dict[str, object]:
        """Plain Python values, loadable with ``weights_only=True``."""
        return {
            "version": 1,
            "num_tasks": self.num_tasks,
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "classes_per_task": [list(held) for held in self.classes_per_task],
            "fingerprint": self.fingerprint,
            "extended_from": [[tasks, fingerprint] for tasks, fingerprint in self.extended_from],
            "forgets_per_task": [list(asked) for asked in self.forgets_per_task],
            "unlabelled_tasks": list(self.unlabelled_tasks),
            "levels": [list(level) for level in self.levels],
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, object]) -> StreamInfo:
        """Inverse of :meth:`state_dict`."""
        check_version(state, 1, "the stream's description")
        return cls(
            num_tasks=int(state["num_tasks"]),  # type: ignore[call-overload]
            num_classes=int(state["num_classes"]),  # type: ignore[call-overload]
            class_names=tuple(state["class_names"]),  # type: ignore[arg-type]
            classes_per_task=tuple(tuple(held) for held in state["classes_per_task"]),  # type: ignore[attr-defined]
            fingerprint=str(state["fingerprint"]),
            extended_from=tuple((int(t), str(f)) for t, f in state.get("extended_from", ())),  # type: ignore[attr-defined]
            forgets_per_task=tuple(tuple(asked) for asked in state.get("forgets_per_task", ())),  # type: ignore[attr-defined]
            unlabelled_tasks=tuple(state.get("unlabelled_tasks", ())),  # type: ignore[arg-type]
            levels=tuple(tuple(level) for level in state.get("levels", ())),  # type: ignore[attr-defined]
        )


@dataclass(frozen=True)
class Schedule:
    """Which epochs belong to which task: task ``t`` covers ``epochs[t]`` epochs.

    Raises:
        ValueError: If there is no task or a task has fewer than one epoch.
    """

    epochs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.epochs or any(n < 1 for n in self.epochs):
            raise ValueError(f"every task needs at least one epoch, but the epochs per task are {list(self.epochs)}.")

    @classmethod
    def build(cls, epochs_per_task: int | Sequence[int], num_tasks: int) -> Schedule:
        """From one number for all tasks or one per task."""
        if isinstance(epochs_per_task, int):
            return cls((epochs_per_task,) * num_tasks)
        if len(epochs_per_task) != num_tasks:
            raise ValueError(
                f"`epochs_per_task` has {len(epochs_per_task)} entries but the stream has {num_tasks} tasks; "
                "give one number, or one per task."
            )
        return cls(tuple(int(n) for n in epochs_per_task))

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """For each task the first epoch after it; summed up once, for it is asked for at every step."""
        return tuple(accumulate(self.epochs))

    @property
    def total(self) -> int:
        """Number of epochs of the whole stream."""
        return self._ends[-1]

    def first_epoch(self, task: int) -> int:
        """First epoch of ``task``."""
        return self._ends[task] - self.epochs[task]

    def last_epoch(self, task: int) -> int:
        """Last epoch of ``task`` (inclusive)."""
        return self._ends[task] - 1

    def task_at(self, epoch: int) -> int:
        """Task that ``epoch`` belongs to; epochs past the end belong to the last task."""
        return min(bisect_right(self._ends, epoch), len(self.epochs) - 1)

    def shortened(self, task: int, epochs: int) -> Schedule:
        """The schedule in which ``task`` ends after ``epochs`` epochs (at least 1, at most what it had)."""
        if not 1 <= epochs <= self.epochs[task]:
            raise ValueError(f"task {task} has {self.epochs[task]} epochs; it cannot be shortened to {epochs}.")
        return replace(self, epochs=(*self.epochs[:task], epochs, *self.epochs[task + 1 :]))
