"""Average accuracy, forgetting and transfer as torchmetrics that keep an accuracy matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch
from torch import Tensor

from lightning_cl.metrics import functional as F
from lightning_cl.metrics.accuracy_matrix import AccuracyMatrix
from lightning_cl.metrics.figures import draw_with
from lightning_cl.metrics.functional import ForgettingVariant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class MatrixMetric(AccuracyMatrix):
    """Base of the metrics that are one number of an accuracy matrix.

    ``update`` is that of :class:`AccuracyMatrix`; ``compute`` takes the stages up to the last one that was counted,
    so a metric can be read after every task. In a ``MetricCollection`` all of them share one pair of counts.
    """

    #: Of :mod:`lightning_cl.metrics.functional`, and the attributes that are its options.
    formula: ClassVar[Callable[..., Tensor]]
    options: ClassVar[tuple[str, ...]] = ()
    micro = False

    def value(self, acc: Tensor, k: int, sizes: Tensor) -> Tensor:
        """The metric after ``k`` finished tasks, from ``acc`` ``(T, T)`` and the test samples ``sizes`` ``(T,)``."""
        given = {name: getattr(self, name) for name in self.options}
        return type(self).formula(acc, k=k, **given, **({"sizes": sizes} if self.micro else {}))

    def compute(self) -> Tensor:
        """The value after the last counted stage, a float64 scalar; NaN where it is not defined. Collective."""
        acc = super().compute()
        k = F.finished_stages(acc)
        return self.value(acc, k, self.total.amax(dim=0)) if k else acc.new_tensor(float("nan"))

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The value after every task as a curve, or the curve of the given values. Collective if none are given."""
        if val is None:
            with self.sync_context():
                val = self._values()
        values = val if isinstance(val, Tensor) else torch.stack([torch.as_tensor(v) for v in val])
        return draw_with("plot_metric_curve", values.reshape(-1), type(self).__name__, ax=ax)

    def _values(self) -> Tensor:
        """The value after each of the ``k`` counted stages, ``(k,)``."""
        acc, sizes = super().compute(), self.total.amax(dim=0)
        stages = [self.value(acc, k, sizes) for k in range(1, F.finished_stages(acc) + 1)]
        return torch.stack(stages) if stages else acc.new_empty(0)


class AverageAccuracy(MatrixMetric):
    """Mean accuracy over the tasks seen so far, in [0, 1]; :func:`~lightning_cl.metrics.functional.average_accuracy`.

    Args:
        num_tasks: ``T``, at least 1.
        micro: Average over the test samples of all seen tasks instead of over tasks.
        **kwargs: Passed to :class:`torchmetrics.Metric`.
    """

    formula = staticmethod(F.average_accuracy)

    def __init__(self, num_tasks: int, micro: bool = False, **kwargs: Any) -> None:
        super().__init__(num_tasks, **kwargs)
        self.micro = micro


class AverageIncrementalAccuracy(MatrixMetric):
    """Mean of the average accuracies after every task; see
    :func:`~lightning_cl.metrics.functional.average_incremental_accuracy`.

    Args:
        num_tasks: ``T``, at least 1.
        skip_first: Leave out the stage after the first task.
        micro: Average over the test samples of all seen tasks instead of over tasks.
        **kwargs: Passed to :class:`torchmetrics.Metric`.
    """

    formula = staticmethod(F.average_incremental_accuracy)
    options = ("skip_first",)

    def __init__(self, num_tasks: int, skip_first: bool = False, micro: bool = False, **kwargs: Any) -> None:
        super().__init__(num_tasks, **kwargs)
        self.skip_first = skip_first
        self.micro = micro


class LearningAccuracy(MatrixMetric):
    """Mean accuracy on each task just after it; :func:`~lightning_cl.metrics.functional.learning_accuracy`."""

    formula = staticmethod(F.learning_accuracy)


class Forgetting(MatrixMetric):
    """Mean loss of accuracy on the old tasks, in [-1, 1]; :func:`~lightning_cl.metrics.functional.forgetting`.

    Args:
        num_tasks: ``T``, at least 1.
        variant: ``"chaudhry"``, ``"max_incl_last"``, ``"first_minus_last"`` or ``"one_step"``; say it with the number.
        from_first_seen: Look for the best accuracy on a task only from the stage on at which it was trained.
        **kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``variant`` is unknown.
    """

    formula = staticmethod(F.forgetting)
    options = ("variant", "from_first_seen")
    higher_is_better = False

    def __init__(
        self, num_tasks: int, variant: ForgettingVariant = "chaudhry", from_first_seen: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(num_tasks, **kwargs)
        if variant not in get_args(ForgettingVariant):
            raise ValueError(
                f"`variant` is {variant!r}; give one of {', '.join(map(repr, get_args(ForgettingVariant)))}."
            )
        self.variant = variant
        self.from_first_seen = from_first_seen


class BackwardTransfer(MatrixMetric):
    """Mean change of old tasks since each was learned; :func:`~lightning_cl.metrics.functional.backward_transfer`."""

    formula = staticmethod(F.backward_transfer)


class ForwardTransfer(MatrixMetric):
    """Mean head start on a task from those before it; :func:`~lightning_cl.metrics.functional.forward_transfer`.

    Args:
        num_tasks: ``T``, at least 1.
        baseline: ``(T,)``, accuracy on each task of the model before any training, in [0, 1].
        **kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``baseline`` does not have one value for each task.
    """

    formula = staticmethod(F.forward_transfer)
    options = ("baseline",)

    def __init__(self, num_tasks: int, baseline: Tensor | Sequence[float], **kwargs: Any) -> None:
        super().__init__(num_tasks, **kwargs)
        self.baseline = torch.as_tensor(baseline, dtype=torch.float64)
        if self.baseline.shape != (num_tasks,):
            raise ValueError(
                f"`baseline` has shape {tuple(self.baseline.shape)} but must be ({num_tasks},): a value for each task."
            )
