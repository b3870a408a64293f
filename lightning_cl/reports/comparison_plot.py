"""The figure of a comparison, at the width of a paper's column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_cl.reports import drawing as draw
from lightning_cl.reports.comparison import COLUMNS, Column, Comparison, mean_and_deviation
from lightning_cl.reports.plots import COLUMN_WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS, MARKERS = ("#0072B2", "#D55E00"), ("o", "s")  # Okabe and Ito's blue and vermilion: safe for colour blindness
_SPREAD = 0.22  # of a row: single runs lie below the mean


def plot_comparison(comparison: Comparison) -> tuple[Figure, list[Axes]]:
    """A row for each method: the mean with the standard deviation, and every single run below it.

    The left panel shows the headline (see :meth:`Comparison.headline`), the right one what was forgotten, each with a
    marker and a colour of its own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [comparison.headline()]
    forgotten = "f_last" if shown[0].key == "a_auc" else "forgetting"
    shown += [c for c in COLUMNS if c.key == forgotten and any(comparison.values(m, c.key) for m in comparison.methods)]
    count = len(comparison.methods)
    figure = Figure(figsize=(COLUMN_WIDTH, 0.75 + 0.26 * count), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(wspace=0.12)  # type: ignore[union-attr, call-arg]  # 100 and 0 keep apart
    axes = [figure.add_subplot(1, len(shown), place + 1) for place in range(len(shown))]
    for place, (ax, column) in enumerate(zip(axes, shown, strict=True)):
        _draw(ax, comparison, column, COLOURS[place], MARKERS[place])
        ax.set_yticks(range(count), comparison.methods if place == 0 else [""] * count)
        ax.set_ylim(count - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
    return figure, axes


def _draw(ax: Axes, comparison: Comparison, column: Column, colour: str, marker: str) -> None:
    name = column.title.removesuffix(" %")
    draw.frame(ax, None, f"{name[0].upper()}{name[1:]} (%)", "")
    ax.grid(axis="x", which="both", color="0.9", lw=0.5)
    ax.set_axisbelow(True)
    lowest = 0.0
    for row, method in enumerate(comparison.methods):
        values = [column.scale * value for value in comparison.values(method, column.key)]
        if not values:
            continue
        mean, deviation = mean_and_deviation(values)
        lowest = min(lowest, mean - (deviation or 0.0), *values)
        ax.errorbar(
            mean, row, xerr=deviation, fmt=marker, color=colour, ms=3.2, lw=1.1, capsize=2, capthick=0.9, clip_on=False
        )
        if len(values) > 1:
            ax.plot(values, [row + _SPREAD] * len(values), "|", color="0.45", ms=3.5, mew=0.7, clip_on=False)
    ax.set_xlim(min(0.0, 1.05 * lowest), 100)
    ax.set_xticks([0, 50, 100])  # more would meet beside long names
    ax.set_xticks([25, 75], minor=True)
    ax.tick_params(axis="x", which="minor", length=0)
