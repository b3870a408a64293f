"""Accuracy of groups of samples, from counts that add up exactly over batches and processes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cl.metrics.functional._matrix import to_float64


class CountedAccuracy(Metric):
    """Base of all accuracies here: int64 counts of right answers and of all samples, summed over processes.

    They are divided at the end only, so uneven batches and shards are exact. What counts as a right answer is the
    caller's: pass labels of :func:`~lightning_cl.metrics.class_il_predictions` or
    :func:`~lightning_cl.metrics.task_il_predictions`. Metric states are not in checkpoints.

    Args:
        *shape: Of the table of counts.
        **kwargs: Passed to :class:`torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update: bool | None = False
    correct: Tensor
    total: Tensor

    def __init__(self, *shape: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Float64 accuracies in [0, 1] in the shape of the counts, NaN without a sample. Collective."""
        return to_float64(self.correct) / to_float64(self.total)  # 0 / 0 is NaN

    def counts(self) -> tuple[Tensor, Tensor]:
        """Right answers and all samples, int64, over all processes. Collective: call it on every process."""
        with self.over_processes():
            return self.correct.clone(), self.total.clone()

    def over_processes(self) -> AbstractContextManager[None]:
        """Within it the state is that of all processes; also where it is already. Collective."""
        own = not self._is_synced
        return self.sync_context(should_unsync=own, should_sync=own)

    def _count(self, hits: Tensor, cells: Tensor) -> None:
        """Count ``(N,)`` right and wrong answers at the flat positions ``cells`` ``(N,)`` of the table.

        As new tensors, since counts made in `torch.inference_mode` cannot be changed outside it; not by `bincount`,
        which waits for the device to learn its output's size.
        """
        for name, amount in (("correct", hits.long()), ("total", torch.ones_like(cells))):
            counts = getattr(self, name)
            setattr(self, name, counts.flatten().index_add(0, cells, amount).view_as(counts))


class GroupAccuracy(CountedAccuracy):
    """Accuracy on each of ``G`` groups of samples, such as tasks or classes, ``(G,)`` in [0, 1].

    Args:
        num_groups: ``G``.
        **kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_cl.metrics import GroupAccuracy
        >>> accuracy = GroupAccuracy(num_groups=3)
        >>> accuracy.update(preds=torch.tensor([0, 1]), target=torch.tensor([0, 0]), group=torch.tensor([0, 2]))
        >>> accuracy.compute()
        tensor([1., nan, 0.], dtype=torch.float64)
    """

    def __init__(self, num_groups: int, **kwargs: Any) -> None:
        super().__init__(num_groups, **kwargs)

    def update(self, preds: Tensor, target: Tensor, group: Tensor) -> None:
        """Count a batch. No device synchronisation.

        Args:
            preds: ``(N,)`` predicted class ids, or ``(N, C)`` logits whose largest entry is the prediction.
            target: ``(N,)`` class ids.
            group: ``(N,)`` group of each sample, ``0..G-1``.

        Raises:
            ValueError: If a group is out of range (not looked at on an accelerator), or the shapes do not agree.
        """
        hits, group = right_answers(preds, target), group.to(target.device).long()
        wrong = [] if group.device.type != "cpu" else outside(group, len(self.total))
        if wrong or group.shape != target.shape:
            raise ValueError(
                f"`group` {tuple(group.shape)} must give one of 0..{len(self.total) - 1} for each of the "
                f"{len(target)} targets, but holds {wrong[:5]}; leave out samples that belong to none."
            )
        self._count(hits, group)


def right_answers(preds: Tensor, target: Tensor) -> Tensor:
    """``(N,)`` bool: which of ``(N,)`` predicted classes, or ``(N, C)`` logits, agree with ``(N,)`` targets.

    Raises:
        ValueError: If the shapes do not agree.
    """
    labels = preds.argmax(dim=-1) if preds.ndim == target.ndim + 1 else preds
    if target.ndim != 1 or labels.shape != target.shape:
        raise ValueError(
            f"`preds` {tuple(preds.shape)} and `target` {tuple(target.shape)} do not agree; "
            "give (N,) labels or (N, C) logits with (N,) targets."
        )
    return labels == target


def outside(groups: Tensor, count: int) -> list[int]:
    """The values of ``groups`` that are not in ``0..count-1``, ascending."""
    wrong: list[int] = groups[(groups < 0) | (groups >= count)].unique().tolist()
    return wrong
