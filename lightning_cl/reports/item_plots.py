"""Draw what ``ItemCurves`` followed: how long samples stay learned, and each class over the validations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_cl.reports import drawing as draw
from lightning_cl.reports.plots import COLUMN_WIDTH
from lightning_cl.reports.units import COLORMAP

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_items(facts: Mapping[str, Any], class_names: Sequence[str] = ()) -> tuple[Figure, Any]:
    """The share of samples still right by age, and a map of each class's accuracy over the validations.

    Args:
        facts: As ``ItemCurves.report_facts`` gives them; None in a value is "not evaluated".
        class_names: Of the rows of the map; numbers without.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * COLUMN_WIDTH, COLUMN_WIDTH * 0.75), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    share = [(age, 100 * value) for age, value in enumerate(facts["retention"]) if value is not None and value == value]
    ages, values = [age for age, _ in share], [value for _, value in share]
    left.plot(ages, values, color=draw.COLOURS[0], lw=1.3, marker="o", ms=2.2)
    draw.frame(left, None, "Validations since a sample was learned", "Still right (%)")
    left.set_ylim(0, 101)
    curves = [[float("nan") if value is None else value for value in row] for row in facts["class_accuracy"]]
    right.imshow(curves, aspect="auto", cmap=COLORMAP, vmin=0, vmax=1, interpolation="nearest")
    draw.frame(right, None, "Validation", "Class")
    shown = draw.spaced(len(curves), most=20)
    right.set_yticks(shown, [class_names[c] if c < len(class_names) else str(c) for c in shown])
    return figure, (left, right)
