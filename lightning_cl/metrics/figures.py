"""Figures of a metric, drawn by the package of the reports."""

from importlib import import_module
from typing import Any


def draw_with(function: str, *args: Any, **options: Any) -> Any:
    """Call a plotting function of :mod:`lightning_cl.reports`, which imports the metrics and so comes after them."""
    return getattr(import_module("lightning_cl.reports"), function)(*args, **options)
