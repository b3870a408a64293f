"""Parts of the figures in ``plots.py``: axes, ticks, cell values and labels that keep out of each other's way."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_cl.reports.units import ACCURACY, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "0.35"
#: Okabe and Ito's colours without the yellow, told apart by every kind of colour vision; the line style helps in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", "-.", ":")
MOST_STYLES = len(COLOURS) * len(STYLES)  # lines that can be told apart
SMALL = 7.0  # points: ticks and direct labels; axis names are one larger


def check_names(names: Sequence[str] | None, count: int) -> list[str]:
    """The task names, or the numbers from 1.

    Raises:
        ValueError: If there is not one name for each task.
    """
    if names is None:
        return [str(task) for task in range(1, count + 1)]
    if len(names) != count:
        raise ValueError(f"`task_names` has {len(names)} names but `acc` has {count} tasks; give one for each.")
    return list(names)


def new_axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """``ax`` and its figure, or those of a new figure of ``size`` inches that pyplot does not know of."""
    if ax is not None:
        owner: Any = ax.figure
        return owner, ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def svg_address(figure: Figure) -> str:
    """An SVG as a data address: what is inside cannot meet names of other pictures, and text is drawn as outlines."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def frame(ax: Axes, title: str | None, xlabel: str, ylabel: str) -> None:
    """Names of the axes and thin grey lines, left and below only."""
    ax.set_xlabel(xlabel, fontsize=SMALL + 1)
    ax.set_ylabel(ylabel, fontsize=SMALL + 1)
    if title:
        ax.set_title(title, fontsize=SMALL + 2)
    ax.tick_params(labelsize=SMALL, length=2, width=0.5, color=GREY)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.5)
        spine.set_color(GREY)


def spaced(count: int, most: int = 11) -> list[int]:
    """Positions of at most ``most`` ticks among ``0..count-1``, at a step of 1, 2, 5, 10, ... from 0."""
    steps = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
    step = next(step for step in steps if (count - 1) // step + 1 <= most)
    return list(range(0, count, step))


def task_ticks(ax: Axes, names: Sequence[str], named: bool) -> None:
    """A tick for each task on both axes of a heat map; names when ``named``, slanted when long, else spaced numbers."""
    count = len(names)
    ticks = list(range(count)) if named or count <= 20 else spaced(count)
    size = SMALL if count <= 12 else 5.5 if count <= 15 or count > 20 else 4.8
    long = max(len(name) for name in names) > 3
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long and named else {}
    ax.set_xticks(ticks, [names[t] for t in ticks], fontsize=size, **slant)
    ax.set_yticks(ticks, [names[t] for t in ticks], fontsize=size)
    ax.tick_params(length=0 if count <= 20 else 2)
    if count <= 20:  # a hairline between cells, so that equal neighbours stay two
        ax.set_xticks([t - 0.5 for t in range(1, count)], minor=True)
        ax.set_yticks([t - 0.5 for t in range(1, count)], minor=True)
        ax.grid(which="minor", color="white", lw=0.5)
        ax.tick_params(which="minor", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def print_cells(ax: Axes, percent: Tensor, unit: Unit, limits: tuple[float, float]) -> None:
    """The value of each measured cell, dark on light and light on dark; whole percents where a decimal has no room."""
    count = len(percent)
    digits = 1 if count <= 10 else 0
    size = min(SMALL, (60 if digits else 92) / count)
    for i, row in enumerate(percent.tolist()):
        for j, value in enumerate(row):
            if value == value:  # not NaN
                text = "100" if f"{value:.{digits}f}".startswith("100") else f"{value:.{digits}f}"
                text = text if unit.metric is None else unit.text(value)
                ax.text(j, i, text, ha="center", va="center", fontsize=size, color=ink(unit.colour(value, limits)))


def ink(background: tuple[float, ...]) -> str:
    """Black or white, whichever has the higher contrast with an RGB colour in [0, 1] (WCAG 2.1, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"  # where (L + 0.05) / 0.05 is 1.05 / (L + 0.05)


def percent_axis(ax: Axes, unit: Unit = ACCURACY, limits: tuple[float, float] = (0.0, 100.0)) -> None:
    """0 to 100 percent on the vertical axis, or what another unit's limits are, with faint lines."""
    low, high = limits
    ax.set_ylim(low, high + 0.01 * (high - low))  # a line at 100 is not cut in half
    if unit.metric is None:
        ax.set_yticks([0, 20, 40, 60, 80, 100])
    ax.grid(axis="y", color="0.9", lw=0.5)
    ax.set_axisbelow(True)


def stage_axis(ax: Axes, count: int) -> None:
    """Stages on the horizontal axis, counted from 1."""
    ax.set_xticks(spaced(count), [str(stage + 1) for stage in spaced(count)])
    margin = 0.03 * max(count - 1, 1)
    ax.set_xlim(-margin, (count - 1) + margin)


def draw_runs(ax: Axes, runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], **style: Any) -> list[Any]:
    """A curve in percent for each run, told apart by colour and line style; its end for :func:`label_ends`."""
    ends = []
    for number, (name, (places, percent)) in enumerate(runs.items()):
        colour, line = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        ax.plot(places, percent, line, color=colour, lw=1.3, **style)
        measured = [value for value in percent if value == value]
        ends += [(measured[-1], name, colour, False)] if measured else []
    return ends


def refuse_too_many(runs: Sized) -> None:
    """Refuse runs that cannot be told apart in one figure.

    Raises:
        ValueError: If there is none, or too many.
    """
    if not 1 <= len(runs) <= MOST_STYLES:
        raise ValueError(f"{len(runs)} runs were given; 1 to {MOST_STYLES} can be told apart in one figure.")


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions moved as little as needed to be ``gap`` apart within ``[low, high]``, order kept.

    Neighbours closer than ``gap`` form a block around their mean; blocks that meet are joined. Nothing is kept within
    the limits if they have no room for all.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[list[int]] = []

    def start(block: list[int]) -> float:
        middle = sum(positions[index] for index in block) / len(block)
        half = gap * (len(block) - 1) / 2
        return max(low, min(high - 2 * half, middle - half))

    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and start(blocks[-2]) + gap * len(blocks[-2]) > start(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = [0.0] * len(positions)
    for block in blocks:
        for place, index in enumerate(block):
            placed[index] = start(block) + gap * place
    return placed


def label_ends(
    ax: Axes, last: int, ends: Sequence[tuple[float, str, Any, bool]], limits: tuple[float, float] = (0.0, 100.0)
) -> None:
    """Names beside the right ends of curves, joined to them by thin lines.

    Args:
        ax: The curves' axes.
        last: Where the curves end.
        ends: For each curve its last value, its name, its colour, and whether the name is bold.
        limits: Of the vertical axis.
    """
    from matplotlib.colors import to_rgb

    shown = [end for end in ends if end[0] == end[0]]  # not NaN
    low, size = limits[0], (limits[1] - limits[0]) / 100
    places = spread([end[0] for end in shown], 6.2 * size, low + 2.0 * size, low + 99.0 * size)
    for (value, name, colour, bold), place in zip(shown, places, strict=True):
        darker = tuple(0.75 * part for part in to_rgb(colour))  # a pale line can be seen, a pale word cannot be read
        ax.annotate(
            name, xy=(last, value), xytext=(1.07, place), textcoords=ax.get_yaxis_transform(), va="center",
            color=darker, fontsize=SMALL - 0.5, fontweight="bold" if bold else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": colour, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)},
        )  # fmt: skip


def task_colour_bar(figure: Figure, ax: Axes, count: int, colormap: Any, name: str) -> None:
    """A bar that gives the task of a curve's colour."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colour_bar(figure, ax, ScalarMappable(Normalize(0, count - 1), colormap), spaced(count, most=6), name, first=1)


def colour_bar(figure: Figure, ax: Axes, mappable: Any, ticks: Sequence[float], name: str, first: int = 0) -> None:
    """A bar as high as the axes and close to them: an inset, since a neighbour would not follow a fixed aspect."""
    bar = figure.colorbar(mappable, cax=ax.inset_axes((1.03, 0.0, 0.045, 1.0)), ticks=list(ticks))
    outline: Any = bar.outline
    outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, length=2, width=0.5, color=GREY)
    bar.set_ticks(list(ticks), labels=[f"{tick + first:g}" for tick in ticks])
    bar.set_label(name, fontsize=SMALL + 1)
