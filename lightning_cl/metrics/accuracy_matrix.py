"""The accuracy of every task after every task, from counts that add up exactly over batches and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cl.metrics.figures import draw_with
from lightning_cl.metrics.functional._matrix import to_float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class AccuracyMatrix(Metric):
    """``acc[i, j]``: accuracy on the test data of task ``j`` after training task ``i``; ids from 0, in [0, 1].

    Keeps two ``(T, T)`` int64 counts, summed over processes, and divides at the end: uneven batches and shards are
    exact. What counts as a correct prediction is the caller's: pass labels of :func:`class_il_predictions` or
    :func:`task_il_predictions`, one matrix for each label space.

    Metric states are not in checkpoints; to outlive a run, save :meth:`counts` and restore them with
    :meth:`load_counts`.

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

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(num_tasks, bool) or not isinstance(num_tasks, int) or num_tasks < 1:
            raise ValueError(f"`num_tasks` is {num_tasks!r}; give the number of tasks of the stream, an int >= 1.")
        self.num_tasks = num_tasks
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros(num_tasks, num_tasks, dtype=torch.long), dist_reduce_fx="sum")

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
        labels = preds.argmax(dim=-1) if preds.ndim == target.ndim + 1 else preds
        if target.ndim != 1 or labels.shape != target.shape:
            raise ValueError(
                f"`preds` {tuple(preds.shape)} and `target` {tuple(target.shape)} do not agree; "
                "give (N,) labels or (N, C) logits with (N,) targets."
            )
        cells = self._tasks(task, target) + stage * self.num_tasks
        self.correct = _add(self.correct, cells, (labels == target).long())
        self.total = _add(self.total, cells, torch.ones_like(cells))

    def compute(self) -> Tensor:
        """``(T, T)`` float64 accuracies, NaN where no sample was counted. Collective: call it on every process."""
        return to_float64(self.correct) / to_float64(self.total)  # 0 / 0 is NaN

    def counts(self) -> tuple[Tensor, Tensor]:
        """Correct and all samples, each ``(T, T)`` int64, over all processes. Collective: call it on every process."""
        with self.sync_context(should_unsync=not self._is_synced, should_sync=not self._is_synced):
            return self.correct.clone(), self.total.clone()

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
        if tasks.device.type == "cpu" and not bool(((tasks >= 0) & (tasks < self.num_tasks)).all()):
            wrong = sorted({int(t) for t in tasks if not 0 <= t < self.num_tasks})
            raise ValueError(
                f"`task` holds {wrong[:5]} but the stream has {self.num_tasks} tasks, 0..{self.num_tasks - 1}; "
                "leave out samples that belong to no task."
            )
        return tasks


def _add(counts: Tensor, cells: Tensor, amount: Tensor) -> Tensor:
    """``counts`` ``(T, T)`` with ``amount`` ``(N,)`` added at the flat positions ``cells`` ``(N,)``, as a new tensor.

    Not in place, since counts made in `torch.inference_mode` cannot be changed outside it; not `bincount`, which
    waits for the device to learn its output's size.
    """
    return counts.flatten().index_add(0, cells, amount).view_as(counts)


def _rank(group: Any) -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank(group) if distributed else 0
