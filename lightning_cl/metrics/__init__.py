"""Metrics of continual learning: an accuracy matrix, what is read off it, its figures and a report.

Pure functions of a matrix are in :mod:`lightning_cl.metrics.functional`.
"""

from lightning_cl.metrics.accuracy_matrix import AccuracyMatrix
from lightning_cl.metrics.continual import (
    AverageAccuracy,
    AverageIncrementalAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    LearningAccuracy,
    MatrixMetric,
)
from lightning_cl.metrics.functional import class_il_predictions, class_table, mask_logits, task_il_predictions
from lightning_cl.metrics.plots import plot_accuracy_curves, plot_accuracy_matrix, plot_metric_curve

__all__ = [
    "AccuracyMatrix",
    "AverageAccuracy",
    "AverageIncrementalAccuracy",
    "BackwardTransfer",
    "Forgetting",
    "ForwardTransfer",
    "LearningAccuracy",
    "MatrixMetric",
    "class_il_predictions",
    "class_table",
    "mask_logits",
    "plot_accuracy_curves",
    "plot_accuracy_matrix",
    "plot_metric_curve",
    "task_il_predictions",
]
