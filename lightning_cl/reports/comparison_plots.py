"""Draw several runs or methods in one figure, at the width of a paper's column."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_cl.reports import drawing as draw
from lightning_cl.reports.anytime_plots import frame_samples, mark_tasks
from lightning_cl.reports.compared_runs import Column, ComparedRuns, mean_and_deviation
from lightning_cl.reports.plots import COLUMN_WIDTH
from lightning_cl.reports.report import ContinualReport, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS, MARKERS = ("#0072B2", "#D55E00"), ("o", "s")  # Okabe and Ito's blue and vermilion: safe for colour blindness
_SPREAD = 0.22  # of a row: single runs lie below the mean


def plot_anytime_comparison(
    reports: Mapping[str, ContinualReport | str | os.PathLike[str]],
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """The accuracy over samples seen of several runs on one stream, each named at its right end.

    Only the periodic evaluations are drawn. The task ends are those of the first run, and are left out when the runs
    are not all on the same stream.

    Args:
        reports: Name to report, or to the path of its file or folder.
        title: Text above the figure.
        ax: Axes to draw into; a figure of column width by default.

    Raises:
        ValueError: If there is no report, more than can be told apart, or one without an anytime section.
    """
    draw.refuse_too_many(reports)
    runs = {name: r if isinstance(r, ContinualReport) else read(r) for name, r in reports.items()}
    sections = {name: report.anytime for name, report in runs.items() if report.anytime is not None}
    missing = [name for name in runs if name not in sections]
    if missing:
        raise ValueError(
            f"the report(s) of {', '.join(map(repr, missing))} have no anytime section; run them with the callback "
            "`AnytimeEvaluation`."
        )
    figure, ax = draw.new_axes(ax, (COLUMN_WIDTH, COLUMN_WIDTH * 0.68))
    curves = {name: _periodic(section["curve"]) for name, section in sections.items()}
    ends = draw.draw_runs(ax, curves)
    same = len({report.stream_hash for report in runs.values()}) == 1
    boundaries: list[int] = next(iter(sections.values()))["task_ends"] if same else []
    last = max([1, *boundaries, *(seen for places, _ in curves.values() for seen in places)])
    frame_samples(ax, title, last)
    mark_tasks(ax, boundaries)
    draw.label_ends(ax, last, ends)
    return figure, ax


def _periodic(curve: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """Samples seen and accuracies in percent of the periodic evaluations."""
    points = zip(curve["samples_seen"], curve["accuracy"], curve["periodic"], strict=True)
    chosen = [(seen, float("nan") if value is None else 100 * value) for seen, value, due in points if due]
    return [seen for seen, _ in chosen], [value for _, value in chosen]


def plot_comparison(comparison: ComparedRuns) -> tuple[Figure, list[Axes]]:
    """A row for each method: the mean with the standard deviation, and every single run below it.

    The left panel shows the headline (see :meth:`ComparedRuns.headline`), the right one what was forgotten, each with a
    marker and a colour of its own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [comparison.headline()]
    own = shown[0].key.rpartition("/")[0]  # the name of a metric in the accuracy's place
    forgotten = f"{own}/forgetting" if own else "f_last" if shown[0].key == "a_auc" else "forgetting"
    shown += [column for column in comparison.columns(cost=False) if column.key == forgotten]
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


def _draw(ax: Axes, comparison: ComparedRuns, column: Column, colour: str, marker: str) -> None:
    name = column.title.removesuffix(" %")
    percent = name != column.title
    draw.frame(ax, None, f"{name[0].upper()}{name[1:]} (%)" if percent else name, "")
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
    if not percent:
        return
    ax.set_xlim(min(0.0, 1.05 * lowest), 100)
    ax.set_xticks([0, 50, 100])  # more would meet beside long names
    ax.set_xticks([25, 75], minor=True)
    ax.tick_params(axis="x", which="minor", length=0)
