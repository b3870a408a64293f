"""A leaderboard as a page that opens offline, and its figure: what accuracy so many minutes buy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_cl.reports import drawing as draw
from lightning_cl.reports.plots import COLUMN_WIDTH
from lightning_cl.reports.rendering import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_minutes(points: Mapping[str, tuple[float, float]], named: Collection[str], metric: str) -> tuple[Figure, Axes]:
    """A point for each method, accuracy in percent against minutes of one run on a logarithmic axis.

    Args:
        points: Method to minutes (above 0) and percent.
        named: Methods whose names are written beside their points, those that no other beats in both.
        metric: What the percent are of.

    Raises:
        ValueError: If there is no point.
    """
    if not points:
        raise ValueError("there is no method with minutes, so nothing to draw.")
    figure, ax = draw.new_axes(None, (COLUMN_WIDTH, COLUMN_WIDTH * 0.62))
    draw.frame(ax, None, "Minutes of one run", f"{metric} (%)")
    ax.set_xscale("log")
    for method, (minutes, percent) in points.items():
        best = method in named
        ax.plot(minutes, percent, "o", ms=3.5 if best else 2.5, color=draw.COLOURS[0] if best else "0.6")
    for place, method in enumerate(name for name in named if name in points):
        offset = (3, -8 if place % 2 else 3)  # points, now above, now below: neighbours on the line are near
        ax.annotate(method, points[method], xytext=offset, textcoords="offset points", fontsize=draw.SMALL)
    front = sorted(points[method] for method in named if method in points)
    ax.plot([x for x, _ in front], [y for _, y in front], color=draw.COLOURS[0], lw=0.8)
    ax.margins(0.15, 0.1)
    return figure, ax


def leaderboard_page(boards: Sequence[Any], version: str) -> str:
    """All tables with their figures, in one HTML file that needs no network and no other file.

    Args:
        boards: As :func:`lightning_cl.cli.leaderboard.boards` gives them.
        version: Of the package; results of another one are marked.
    """
    return render("leaderboard.html", {}, boards=boards, drawn=figures(boards), version=version)


def figures(boards: Sequence[Any]) -> dict[str, str]:
    """The figure of each table by its name, as a data address; none where no minutes are known."""
    found = {}
    for board in (board for board in boards if board.front()):
        points, named = board.points()
        found[board.name] = draw.svg_address(plot_minutes(points, named, board.metrics[0])[0])
    return found
