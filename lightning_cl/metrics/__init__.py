"""Metrics of continual learning: counters of right answers, and what is read off them.

Pure functions of a matrix are in :mod:`lightning_cl.metrics.functional`. Figures, tables and the report of a run are
in :mod:`lightning_cl.reports`; its public names can be imported from here, too.
"""

from importlib import import_module
from typing import Any

from lightning_cl.metrics.accuracy_matrix import AccuracyMatrix
from lightning_cl.metrics.anytime import AnytimeAccuracy
from lightning_cl.metrics.continual import (
    AverageAccuracy,
    AverageIncrementalAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    LearningAccuracy,
    MatrixMetric,
)
from lightning_cl.metrics.functional import (
    class_il_predictions,
    class_table,
    mask_logits,
    summarise,
    task_il_predictions,
)
from lightning_cl.metrics.group_accuracy import CountedAccuracy, GroupAccuracy

__all__ = [  # those of the reports are found by `__getattr__`
    "AccuracyMatrix",
    "AnytimeAccuracy",
    "AverageAccuracy",
    "AverageIncrementalAccuracy",
    "BackwardTransfer",
    "CountedAccuracy",
    "Forgetting",
    "ForwardTransfer",
    "GroupAccuracy",
    "LearningAccuracy",
    "MatrixMetric",
    "class_il_predictions",
    "class_table",
    "mask_logits",
    "summarise",
    "task_il_predictions",
]


def __getattr__(name: str) -> Any:
    """Find a public name of :mod:`lightning_cl.reports`, which imports the metrics and so comes after them."""
    reports = None if name.startswith("_") else import_module("lightning_cl.reports")
    if reports is None or name not in reports.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(reports, name)
