"""The accuracy over a run as counts, what is read off it, and the section of a report that it becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_cl.metrics import functional as F
from lightning_cl.reports.files import jsonable

DEFINITIONS = {
    "a_auc": "mean of the accuracies of the periodic evaluations, those after a task left out (A_AUC)",
    "average_anytime_accuracy": "mean over all evaluations of the mean accuracy over the tasks seen by then (AAA)",
    "a_avg": "mean over the tasks of the accuracy after each, over all samples of the exposed classes (A_Avg)",
    "a_last": "accuracy after the last task, over all samples of the exposed classes (A_Last)",
    "f_last": "mean over classes of best accuracy after an earlier task minus that after the last (F_Last)",
    "min_acc": "mean over old tasks of the lowest accuracy since their training ended (min-ACC)",
    "wc_acc": "mean of the current task's accuracy and the minima of min_acc (WC-ACC)",
    "windowed_forgetting": "mean over tasks of the largest drop within so many evaluations in a row (WF)",
    "windowed_plasticity": "mean over tasks of the largest rise within so many evaluations in a row (WP)",
    "learning_curve_area": "mean accuracy on each task over the first 10 evaluations of its training (LCA)",
    "prequential_accuracy": "accuracy on the training samples, each predicted before it was trained on",
}
"""What each metric of :meth:`AnytimeCurve.summary` is, the size of a window left out."""

#: Dimensions of the counts: evaluations, tasks, classes.
_SHAPES = {
    **dict.fromkeys(("samples_seen", "task", "exposed", "periodic", "task_end", "online_correct", "online_total"), "P"),
    **dict.fromkeys(("correct", "total"), "PT"),
    **dict.fromkeys(("class_correct", "class_total"), "PC"),
    **dict.fromkeys(("after_correct", "after_total"), "TT"),
    **dict.fromkeys(("after_class_correct", "after_class_total"), "TC"),
}
_FLAGS = ("periodic", "task_end")


@dataclass
class AnytimeCurve:
    """Counts of ``P`` evaluations inside a run over ``T`` tasks and ``C`` classes, and of those after each task.

    An evaluation is over the samples of the exposed classes. The task ends are evaluations too, over the same samples
    as the periodic ones; where a periodic evaluation falls on a task's end, the two are one.

    Attributes:
        samples_seen: ``(P,)`` training samples until then, repeated updates on a batch not counted.
        task: ``(P,)`` the task in training.
        exposed: ``(P,)`` number of exposed classes.
        periodic: ``(P,)`` bool, whether the evaluation was due by its number of samples.
        task_end: ``(P,)`` bool, whether it was made at the end of ``task``.
        correct, total: ``(P, T)`` samples by the task that brought their class (or by domain).
        class_correct, class_total: ``(P, C)`` samples by class.
        online_correct, online_total: ``(P,)`` training samples until then, predicted before training on them; 0 when
            this was not counted.
        after_correct, after_total: ``(T, T)`` all evaluation samples, row "after task"; 0 where not evaluated.
        after_class_correct, after_class_total: ``(T, C)`` the same by class.
    """

    samples_seen: Tensor
    task: Tensor
    exposed: Tensor
    periodic: Tensor
    task_end: Tensor
    correct: Tensor
    total: Tensor
    class_correct: Tensor
    class_total: Tensor
    online_correct: Tensor
    online_total: Tensor
    after_correct: Tensor
    after_total: Tensor
    after_class_correct: Tensor
    after_class_total: Tensor

    @classmethod
    def empty(cls, num_tasks: int, num_classes: int) -> AnytimeCurve:
        """A curve without evaluations."""
        sizes = {"P": 0, "T": num_tasks, "C": num_classes}
        shapes = {name: [sizes[dim] for dim in dims] for name, dims in _SHAPES.items()}
        kinds = {name: torch.bool if name in _FLAGS else torch.long for name in _SHAPES}
        return cls(**{name: torch.zeros(shape, dtype=kinds[name]) for name, shape in shapes.items()})

    def __len__(self) -> int:
        return len(self.samples_seen)

    def add(
        self,
        samples_seen: int,
        task: int,
        exposed: int,
        counts: Tensor,
        online: Sequence[int] = (0, 0),
        task_end: bool = False,
    ) -> None:
        """Add an evaluation; one at a task's end joins a periodic one that was made after the same batch.

        Args:
            samples_seen: Training samples so far.
            task: The task in training.
            exposed: Number of exposed classes.
            counts: ``(2, T + C)`` right answers and all samples, by task and then by class.
            online: Training samples so far that were predicted rightly before training on them, and all that were.
            task_end: The task is over; otherwise the evaluation was due by its number of samples.
        """
        if task_end and len(self) and int(self.samples_seen[-1]) == samples_seen:
            self.task_end[-1] = True
            return
        tasks = self.correct.shape[1]
        by_task, by_class = counts[:, :tasks], counts[:, tasks:]
        row = (samples_seen, task, exposed, not task_end, task_end, *by_task, *by_class, *online)
        for item, value in zip(dataclasses.fields(self), row, strict=False):  # those after tasks come last
            column: Tensor = getattr(self, item.name)
            setattr(self, item.name, torch.cat([column, torch.as_tensor(value, dtype=column.dtype)[None]]))

    def finish_task(self, task: int, counts: Tensor) -> None:
        """Keep the evaluation of all samples after ``task``; ``counts`` as for :meth:`add`."""
        tasks = self.correct.shape[1]
        for name, values in zip(("correct", "total"), counts, strict=True):
            getattr(self, f"after_{name}")[task] = values[:tasks]
            getattr(self, f"after_class_{name}")[task] = values[tasks:]

    @property
    def accuracy(self) -> Tensor:
        """``(P,)`` float64 in [0, 1], over all samples of the exposed classes."""
        return F.accuracy_of_counts(self.correct.sum(1), self.total.sum(1))

    @property
    def trace(self) -> Tensor:
        """``(P, T)`` float64 in [0, 1], the accuracy on every task; NaN before a class of it was exposed."""
        return F.accuracy_of_counts(self.correct, self.total)

    @property
    def prequential(self) -> Tensor:
        """``(P,)`` float64 in [0, 1], running; NaN when it was not counted."""
        return F.accuracy_of_counts(self.online_correct, self.online_total)

    @property
    def after_task(self) -> Tensor:
        """``(T,)`` float64 in [0, 1], over all samples of the exposed classes; NaN where not evaluated."""
        return F.accuracy_of_counts(self.after_correct.sum(1), self.after_total.sum(1))

    @property
    def class_accuracy(self) -> Tensor:
        """``(T, C)`` float64 in [0, 1], the accuracy on every class after every task; NaN where not evaluated."""
        return F.accuracy_of_counts(self.after_class_correct, self.after_class_total)

    @property
    def task_ends(self) -> list[int]:
        """Samples seen at the end of each finished task."""
        ends: list[int] = self.samples_seen[self.task_end].tolist()
        return ends

    def a_auc(self) -> Tensor:
        """Mean accuracy of the periodic evaluations."""
        return F.a_auc(self.accuracy[self.periodic])

    def summary(self, windows: Sequence[int] = (10, 100)) -> dict[str, float | None]:
        """Every metric of :data:`DEFINITIONS` as a fraction; None is "not defined" or "not measured".

        ``windowed_forgetting_10`` is that with a window of 10 evaluations, periodic ones and task ends.
        """
        finished = self.after_total.sum(1) > 0
        after, by_class = self.after_task[finished], self.class_accuracy[finished]
        values = {
            "a_auc": self.a_auc(),
            "average_anytime_accuracy": F.average_anytime_accuracy(self.trace),
            "a_avg": F.a_avg(after),
            "a_last": F.a_last(after),
            "f_last": F.f_last(by_class),
            "min_acc": F.min_acc(self.trace, self.task),
            "wc_acc": F.wc_acc(self.trace, self.task),
        }
        for window in windows:
            values[f"windowed_forgetting_{window}"] = F.windowed_forgetting(self.trace, window)
            values[f"windowed_plasticity_{window}"] = F.windowed_plasticity(self.trace, window)
        values["learning_curve_area"] = F.learning_curve_area(self.trace, self.task)
        if int(self.online_total.sum()):
            values["prequential_accuracy"] = self.prequential[-1]
        return {name: None if bool(value.isnan()) else float(value) for name, value in values.items()}

    def section(self, metadata: Mapping[str, Any], windows: Sequence[int] = (10, 100)) -> dict[str, Any]:
        """What a report says: the curve, all metrics with their definitions, and how it was measured.

        Args:
            metadata: How the evaluations were made, as plain values.
            windows: Of the windowed metrics.
        """
        metrics = self.summary(windows)
        used = {name.rstrip("_0123456789") for name in metrics}
        curve = {
            "samples_seen": self.samples_seen,
            "accuracy": self.accuracy,
            "exposed_classes": self.exposed,
            "task": self.task,
            "periodic": self.periodic,
            "task_end": self.task_end,
            "evaluated": self.total.sum(1),
        }
        if "prequential_accuracy" in metrics:
            curve["prequential_accuracy"] = self.prequential
        section: dict[str, Any] = jsonable(
            {
                "curve": curve,
                "task_accuracy": self.trace,
                "after_task": {"accuracy": self.after_task, "class_accuracy": self.class_accuracy},
                "task_ends": self.task_ends,
                "metrics": metrics,
                "definitions": {name: text for name, text in DEFINITIONS.items() if name in used},
                "metadata": dict(metadata),
            }
        )
        return section

    def state_dict(self) -> dict[str, Tensor]:
        """All counts, by name; what is counted later does not change them."""
        return {item.name: getattr(self, item.name).clone() for item in dataclasses.fields(self)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> AnytimeCurve:
        """Inverse of :meth:`state_dict`."""
        return cls(**{item.name: state[item.name].cpu().clone() for item in dataclasses.fields(cls)})

    def extended(self, num_tasks: int, num_classes: int) -> AnytimeCurve:
        """The curve for a stream with at least as many tasks and classes; of the new ones nothing was counted."""
        sizes = {"P": 0, "T": num_tasks, "C": num_classes}
        state = self.state_dict()
        for name, dims in _SHAPES.items():
            missing = [max(sizes[dim] - size, 0) for dim, size in zip(dims, state[name].shape, strict=True)]
            state[name] = pad(state[name], [width for count in reversed(missing) for width in (0, count)])
        return AnytimeCurve(**state)
