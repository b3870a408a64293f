"""The accuracy of every task after every task, from counts that add up exactly over batches and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_cl.metrics.figures import draw_with
from lightning_cl.metrics.group_accuracy import CountedAccuracy, outside, right_answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class AccuracyMatrix(CountedAccuracy):
    """``acc[i, j]``: accuracy on the test data of task ``j`` after training task ``i``; ids from 0, in [0, 1].

    One matrix for each label space; see :class:`CountedAccuracy`. To outlive a run, save :meth:`counts` and restore
    them with :meth:`load_counts`.

    Args:
        num_tasks: ``T``, at least 1.
        **kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``num_tasks`` is not a positive int.

    Example:
        >>> import torch
        >>> from lightning_cl.metrics import AccuracyMatrix
        >>> matrix = AccuracyMatrix(num_tasks=2)
        >>> matrix.update(0, preds=torch.tensor([0, 1]), target=torch.tensor([0, 0]), task=0)
        >>> matrix.compute()
        tensor([[0.5000,    nan],
                [   nan,    nan]], dtype=torch.float64)
    """

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        if isinstance(num_tasks, bool) or not isinstance(num_tasks, int) or num_tasks < 1:
            raise ValueError(f"`num_tasks` is {num_tasks!r}; give the number of tasks of the stream, an int >= 1.")
        super().__init__(num_tasks, num_tasks, **kwargs)
        self.num_tasks = num_tasks

    def update(self, stage: int, preds: Tensor, target: Tensor, task: Tensor | int) -> None:
        """Count a batch that was evaluated after training task ``stage``. No device synchronisation.

        Args:
            stage: Index of the task trained last, ``0..T-1``.
            preds: ``(N,)`` predicted class ids, or ``(N, C)`` logits whose largest entry is the prediction.
            target: ``(N,)`` class ids.
            task: ``(N,)`` task of each sample, ``0..T-1``, or one for all of them.

        Raises:
            ValueError: If ``stage`` or a task is out of range (on an accelerator a task is not looked at, which would
                wait for the device), or the shapes do not agree.
        """
        self._check_stage(stage)
        hits = right_answers(preds, target)
        self._count(hits, self._tasks(task, target) + stage * self.num_tasks)

    def load_counts(self, correct: Tensor, total: Tensor) -> None:
        """Start from saved counts, as :meth:`counts` gave them. Call it on every process: the first one holds them.

        Raises:
            ValueError: If the shapes are not ``(T, T)`` or not ``0 <= correct <= total``.
        """
        shape = (self.num_tasks, self.num_tasks)
        for name, value in (("correct", correct), ("total", total)):
            if tuple(value.shape) != shape:
                raise ValueError(
                    f"`{name}` has shape {tuple(value.shape)} but this stream has {self.num_tasks} tasks, so {shape} "
                    "is expected; the counts were saved with another stream."
                )
        if not bool(((correct >= 0) & (correct <= total)).all()):
            raise ValueError("`correct` must be between 0 and `total` in every cell; were the two exchanged?")
        self.reset()
        self._touch()
        if _rank(self.process_group) == 0:  # the processes' counts are summed: only one may hold what is already a sum
            self.correct = correct.to(self.correct, copy=True)
            self.total = total.to(self.total, copy=True)

    def reset_stage(self, stage: int) -> None:
        """Forget what was counted after task ``stage``, to evaluate it again; other stages stay.

        Raises:
            ValueError: If ``stage`` is out of range.
        """
        self._check_stage(stage)
        others = torch.arange(self.num_tasks, device=self.total.device)[:, None] != stage  # (T, 1)
        self._touch()
        self.correct, self.total = self.correct * others, self.total * others

    @property
    def sizes(self) -> Tensor:
        """``(T,)`` int64, samples of each task: the most counted at any stage. Collective, like :meth:`counts`."""
        return self.counts()[1].amax(dim=0)

    def plot(self, val: Tensor | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Heat map of the matrix, or of ``val`` ``(T, T)``; see :func:`~lightning_cl.reports.plot_accuracy_matrix`."""
        return draw_with("plot_accuracy_matrix", self.compute() if val is None else val, ax=ax)

    def _check_stage(self, stage: int) -> None:
        if not 0 <= stage < self.num_tasks:
            last = self.num_tasks - 1
            raise ValueError(f"`stage` is {stage} but the stream has {self.num_tasks} tasks; give 0..{last}.")

    def _touch(self) -> None:
        """Count an empty batch, so that the next `compute()` looks at the counts again."""
        empty = self.total.new_empty(0)
        self.update(0, empty, empty, empty)

    def _tasks(self, task: Tensor | int, target: Tensor) -> Tensor:
        """The task of each sample, ``(N,)`` int64 on the device of the counts."""
        tasks = torch.as_tensor(task, device=self.total.device).long().expand(target.shape)
        wrong = outside(tasks, self.num_tasks) if tasks.device.type == "cpu" else []
        if wrong:
            raise ValueError(
                f"`task` holds {wrong[:5]} but the stream has {self.num_tasks} tasks, 0..{self.num_tasks - 1}; "
                "leave out samples that belong to no task."
            )
        return tasks


def _rank(group: Any) -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank(group) if distributed else 0
