"""Metrics of continual learning: an accuracy matrix, what is read off it, its figures and a report.

Pure functions of a matrix are in :mod:`lightning_cl.metrics.functional`.
"""

from lightning_cl.metrics.accuracy_matrix import AccuracyMatrix
from lightning_cl.metrics.anytime import AnytimeAccuracy
from lightning_cl.metrics.anytime_curve import AnytimeCurve
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
from lightning_cl.metrics.plots_anytime import plot_anytime_comparison, plot_anytime_curve
from lightning_cl.metrics.protocol import ProtocolCard, ProtocolError
from lightning_cl.metrics.report import ContinualReport
from lightning_cl.metrics.report import read as read_report
from lightning_cl.metrics.summary import summarise
from lightning_cl.metrics.tables import protocol_table, rich_table

__all__ = [
    "AccuracyMatrix",
    "AnytimeAccuracy",
    "AnytimeCurve",
    "AverageAccuracy",
    "AverageIncrementalAccuracy",
    "BackwardTransfer",
    "ContinualReport",
    "Forgetting",
    "ForwardTransfer",
    "LearningAccuracy",
    "MatrixMetric",
    "ProtocolCard",
    "ProtocolError",
    "class_il_predictions",
    "class_table",
    "mask_logits",
    "plot_accuracy_curves",
    "plot_accuracy_matrix",
    "plot_anytime_comparison",
    "plot_anytime_curve",
    "plot_metric_curve",
    "protocol_table",
    "read_report",
    "rich_table",
    "summarise",
    "task_il_predictions",
]
