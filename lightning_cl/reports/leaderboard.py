"""A leaderboard as a page that opens offline, and its figures: what accuracy so many minutes, or bytes, buy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_cl.reports import drawing as draw
from lightning_cl.reports.plots import COLUMN_WIDTH
from lightning_cl.reports.rendering import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_cost(
    points: Mapping[str, tuple[float, float]], named: Collection[str], metric: str, axis: str
) -> tuple[Figure, Axes]:
    """A point for each method, accuracy in percent against a cost on a logarithmic axis.

    Args:
        points: Method to cost (above 0) and percent.
        named: Methods whose names are written beside their points, those that no other beats in both.
        metric: What the percent are of.
        axis: What the cost is.

    Raises:
        ValueError: If there is no point.
    """
    if not points:
        raise ValueError("there is no method whose cost is known, so nothing to draw.")
    figure, ax = draw.new_axes(None, (COLUMN_WIDTH, COLUMN_WIDTH * 0.62))
    draw.frame(ax, None, axis, f"{metric} (%)")
    ax.set_xscale("log")
    for method, (cost, percent) in points.items():
        best = method in named
        ax.plot(cost, percent, "o", ms=3.5 if best else 2.5, color=draw.COLOURS[0] if best else "0.6")
    for place, method in enumerate(name for name in named if name in points):
        offset = (3, -8 if place % 2 else 3)  # points, now above, now below: neighbours on the line are near
        ax.annotate(method, points[method], xytext=offset, textcoords="offset points", fontsize=draw.SMALL)
    front = sorted(points[method] for method in named if method in points)
    ax.plot([x for x, _ in front], [y for _, y in front], color=draw.COLOURS[0], lw=0.8)
    ax.margins(0.15, 0.1)
    return figure, ax


def leaderboard_page(boards: Sequence[Any], version: str, axes: Mapping[str, str]) -> str:
    """All tables with their figures, in one HTML file that needs no network and no other file.

    Args:
        boards: As :func:`lightning_cl.cli.leaderboard.boards` gives them.
        version: Of the package; results of another one are marked.
        axes: Costs, each with the words for its axis.
    """
    return render("leaderboard.html", {}, boards=boards, drawn=figures(boards, axes), axes=axes, version=version)


def figures(boards: Sequence[Any], axes: Mapping[str, str]) -> dict[str, str]:
    """Figures as data addresses by ``"{name of the table}_{cost}"``; none where a cost is not known.

    Args:
        boards: See :func:`leaderboard_page`.
        axes: Costs, each with the words for its axis.
    """
    found = {}
    for board in boards:
        for cost, axis in axes.items():
            points, named = board.points(cost)
            if points:
                found[f"{board.name}_{cost}"] = draw.svg_address(plot_cost(points, named, board.metrics[0], axis)[0])
    return found
