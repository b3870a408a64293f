"""The accuracy at any time as a torchmetric, from counts that add up exactly over batches and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cl.metrics import functional as F
from lightning_cl.metrics.figures import draw_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class AnytimeAccuracy(Metric):
    """Area under the curve of accuracy over training samples seen (A_AUC), from evaluations inside a run.

    Keeps the right answers and all samples of each evaluation, summed over processes, and divides at the end: uneven
    batches and shards are exact. Whether unexposed classes are left out is the caller's: pass predictions of
    :func:`~lightning_cl.metrics.class_il_predictions`. Metric states are not in checkpoints.

    Args:
        **kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_cl.metrics import AnytimeAccuracy
        >>> metric = AnytimeAccuracy()
        >>> metric.update(100, preds=torch.tensor([0, 1]), target=torch.tensor([0, 0]))
        >>> metric.update(200, preds=torch.tensor([0, 0]), target=torch.tensor([0, 0]))
        >>> metric.compute()
        tensor(0.7500, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = True  # `forward` must not add up evaluations of different moments
    samples_seen: Tensor
    correct: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("samples_seen", torch.zeros(0, dtype=torch.long), dist_reduce_fx="max")
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros(0, dtype=torch.long), dist_reduce_fx="sum")
        self._latest = -1

    def update(self, samples_seen: int, preds: Tensor, target: Tensor) -> None:
        """Count a batch of an evaluation; a higher ``samples_seen`` starts the next one. No device synchronisation.

        With several processes call it on all of them for every evaluation, if need be with no sample.

        Args:
            samples_seen: Training samples until this evaluation, over all processes.
            preds: ``(N,)`` predicted class ids, or ``(N, C)`` logits whose largest entry is the prediction.
            target: ``(N,)`` class ids.

        Raises:
            ValueError: If ``samples_seen`` goes back, or the shapes do not agree.
        """
        labels = preds.argmax(dim=-1) if preds.ndim == target.ndim + 1 else preds
        if target.ndim != 1 or labels.shape != target.shape:
            raise ValueError(
                f"`preds` {tuple(preds.shape)} and `target` {tuple(target.shape)} do not agree; "
                "give (N,) labels or (N, C) logits with (N,) targets."
            )
        if samples_seen < self._latest:
            raise ValueError(
                f"`samples_seen` is {samples_seen} after {self._latest}; give the evaluations in the order of training."
            )
        if samples_seen > self._latest:
            self._latest = samples_seen
            self.samples_seen = _append(self.samples_seen, samples_seen)
            self.correct, self.total = _append(self.correct, 0), _append(self.total, 0)
        # Not in place: what was made in `torch.inference_mode` cannot be changed outside it.
        self.correct = torch.cat([self.correct[:-1], self.correct[-1:] + (labels == target).sum()])
        self.total = torch.cat([self.total[:-1], self.total[-1:] + target.numel()])

    def compute(self) -> Tensor:
        """Mean accuracy over the evaluations, a float64 scalar; NaN without one. Collective: call it on every process.

        An evaluation without a sample makes it NaN.
        """
        return F.a_auc(self.accuracy)

    @property
    def accuracy(self) -> Tensor:
        """``(P,)`` float64, the accuracy of every evaluation, of this process or, while synchronised, of all."""
        return F.accuracy_of_counts(self.correct, self.total)

    def reset(self) -> None:
        """Forget all evaluations."""
        super().reset()
        self._latest = -1

    def plot(self, val: Tensor | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The curve, or the accuracies ``val`` ``(P,)`` in its place; collective. See :func:`plot_anytime_curve`."""
        with self.sync_context(should_unsync=not self._is_synced, should_sync=not self._is_synced):
            seen, accuracy = self.samples_seen.tolist(), self.accuracy
        return draw_with("plot_anytime_curve", seen, accuracy if val is None else val, ax=ax)


def _append(values: Tensor, value: int) -> Tensor:
    return torch.cat([values, values.new_full((1,), value)])
