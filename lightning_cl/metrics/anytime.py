"""The accuracy at any time as a torchmetric, from counts that add up exactly over batches and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_cl.metrics.figures import draw_with
from lightning_cl.metrics.functional import a_auc, accuracy_of_counts
from lightning_cl.metrics.group_accuracy import CountedAccuracy, right_answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class AnytimeAccuracy(CountedAccuracy):
    """Area under the curve of accuracy over training samples seen (A_AUC), from evaluations inside a run.

    Keeps the counts of each evaluation, see :class:`CountedAccuracy`; whether unexposed classes are left out is the
    caller's.

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

    full_state_update = True  # `forward` must not add up evaluations of different moments
    samples_seen: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(0, **kwargs)
        self.add_state("samples_seen", torch.zeros(0, dtype=torch.long), dist_reduce_fx="max")
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
        hits = right_answers(preds, target)
        if samples_seen < self._latest:
            raise ValueError(
                f"`samples_seen` is {samples_seen} after {self._latest}; give the evaluations in the order of training."
            )
        if samples_seen > self._latest:
            self._latest = samples_seen
            self.samples_seen = pad(self.samples_seen, (0, 1), value=samples_seen)
            self.correct, self.total = pad(self.correct, (0, 1)), pad(self.total, (0, 1))
        self._count(hits, torch.full_like(target, len(self.total) - 1, dtype=torch.long))

    def compute(self) -> Tensor:
        """Mean accuracy over the evaluations, a float64 scalar; NaN without one. Collective: call it on every process.

        An evaluation without a sample makes it NaN.
        """
        return a_auc(self.accuracy)

    @property
    def accuracy(self) -> Tensor:
        """``(P,)`` float64, the accuracy of every evaluation, of this process or, while synchronised, of all."""
        return accuracy_of_counts(self.correct, self.total)

    def reset(self) -> None:
        """Forget all evaluations."""
        super().reset()
        self._latest = -1

    def plot(self, val: Tensor | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The curve, or the accuracies ``val`` ``(P,)`` in its place; collective. See :func:`plot_anytime_curve`."""
        with self.over_processes():
            seen, accuracy = self.samples_seen.tolist(), self.accuracy
        return draw_with("plot_anytime_curve", seen, accuracy if val is None else val, ax=ax)
