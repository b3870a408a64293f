"""Draw the figure of a metric with a function of the reports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_with(function: str, *args: Any, **options: Any) -> tuple[Figure, Axes]:
    """Call a plotting function of :mod:`lightning_cl.reports`, which imports the metrics and so comes after them."""
    drawn: tuple[Figure, Axes] = getattr(import_module("lightning_cl.reports"), function)(*args, **options)
    return drawn
