"""Figures of an accuracy matrix at the width of a paper's column, drawn without pyplot's global state.

matplotlib is imported when something is drawn. Each function takes accuracies in [0, 1], shows percent, and gives
``(figure, axes)``; ``figure.savefig("matrix.pdf")`` writes it. Pass ``ax`` to draw into a figure of your own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, finished_block, finished_stages, to_float64
from lightning_cl.metrics.functional.accuracy import accuracy_per_stage
from lightning_cl.reports import drawing as draw
from lightning_cl.reports.units import ACCURACY, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.4  # inches, of a two-column paper
MAX_PRINTED = 20  # tasks; beyond, a number in a cell could not be read
MAX_LABELLED = 10  # curves; beyond, a colour bar names them


def plot_accuracy_matrix(
    acc: MatrixLike,
    task_names: Sequence[str] | None = None,
    *,
    title: str | None = None,
    ax: Axes | None = None,
    unit: Unit = ACCURACY,
) -> tuple[Figure, Axes]:
    """Heat map of accuracy in percent: a row for every trained task, a column for every evaluated one, NaN left blank.

    Args:
        acc: ``(T, T)`` in [0, 1]; ``acc[i, j]`` is accuracy on task ``j`` after training task ``i``.
        task_names: ``T`` names; the tasks' numbers from 1 by default.
        title: Text above the figure.
        ax: Axes to draw into; a figure of column width by default.
        unit: What ``acc`` holds, if not accuracies.

    Raises:
        ValueError: If ``acc`` is not square or there is not one name for each task.
    """
    limits = unit.limits(finished_block(acc, None).flatten().tolist())
    percent = unit.factor * finished_block(acc, None).cpu()
    count = len(percent)
    names = draw.check_names(task_names, count)
    labelled = task_names is not None and count <= MAX_PRINTED
    height = COLUMN_WIDTH * 0.82 + (0.28 if title else 0.0)
    figure, ax = draw.new_axes(ax, (COLUMN_WIDTH, height))
    low, high = limits
    image = ax.imshow(percent.numpy(), cmap=unit.colormap, vmin=low, vmax=high, interpolation="nearest", aspect="equal")
    draw.frame(ax, title, "Evaluated on task", "After task")
    draw.task_ticks(ax, names, labelled)
    if count <= MAX_PRINTED:
        draw.print_cells(ax, percent, unit, limits)
    ticks = [float(f"{low + share * (high - low):.3g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    draw.colour_bar(figure, ax, image, ticks, unit.label)
    return figure, ax


def matrix_image(acc: MatrixLike, unit: Unit = ACCURACY) -> Any:
    """The picture of :func:`plot_accuracy_matrix` as a ``(height, width, 3)`` uint8 array, for loggers."""
    import numpy as np

    figure: Any = plot_accuracy_matrix(acc, unit=unit)[0]
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def plot_accuracy_curves(
    acc: MatrixLike,
    task_names: Sequence[str] | None = None,
    *,
    seen_average: Tensor | Sequence[float] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    unit: Unit = ACCURACY,
) -> tuple[Figure, Axes]:
    """Accuracy on each task from the stage at which it was learned, and in bold the average over the tasks seen so far.

    A stream that is not over is drawn up to its last measured stage.

    Args:
        acc: ``(T, T)`` in [0, 1]; ``acc[i, j]`` is accuracy on task ``j`` after training task ``i``.
        task_names: ``T`` names; the tasks' numbers from 1 by default.
        seen_average: ``(T,)`` the bold line's values in [0, 1], for instance the micro average; the mean over tasks
            by default.
        title: Text above the figure.
        ax: Axes to draw into; a figure of column width by default.
        unit: What ``acc`` holds, if not accuracies.

    Raises:
        ValueError: If ``acc`` is not square, or there is not one name or average for each task.
    """
    names = draw.check_names(task_names, len(finished_block(acc, None)))
    average = unit.factor * (accuracy_per_stage(acc) if seen_average is None else to_float64(seen_average)).cpu()
    if average.shape != (len(names),):
        raise ValueError(
            f"`seen_average` has shape {tuple(average.shape)} but there are {len(names)} stages; give one for each."
        )
    count = max(finished_stages(acc), 1)
    percent, average = unit.factor * finished_block(acc, count).cpu(), average[:count]
    limits = unit.limits(finished_block(acc, count).flatten().tolist())
    figure, ax = draw.new_axes(ax, (COLUMN_WIDTH, COLUMN_WIDTH * 0.68))
    dense = count > MAX_LABELLED
    colormap, colours = _task_colours(count)
    for j in range(count):
        ax.plot(
            range(j, count), percent[j:, j].tolist(), color=colours[j], marker="o", mew=0, clip_on=False, **_thin(dense)
        )
    marker = 3.5 if count <= MAX_PRINTED else 0
    line = ax.plot(range(count), average.tolist(), "o-", color="black", lw=2.0, ms=marker, zorder=5, clip_on=False)
    draw.frame(ax, title, "After task", unit.label)
    draw.stage_axis(ax, count)
    draw.percent_axis(ax, unit, limits)
    if dense:
        ax.legend(
            line, ["Average of seen tasks"], loc="lower right", bbox_to_anchor=(1.02, 0.98), frameon=False, fontsize=7
        )
        draw.task_colour_bar(figure, ax, count, colormap, "Task")
    else:
        labels = names if task_names is not None else [f"Task {name}" for name in names]
        ends = [(percent[-1, j].item(), labels[j], colours[j], False) for j in range(count)]
        draw.label_ends(ax, count - 1, [*ends, (average[-1].item(), "Average", "black", True)], limits)
    return figure, ax


def plot_stage_comparison(
    runs: Mapping[str, Sequence[float]],
    *,
    title: str | None = None,
    ax: Axes | None = None,
    unit: Unit = ACCURACY,
) -> tuple[Figure, Axes]:
    """The average accuracy after every task of several runs, each named at its right end.

    Args:
        runs: Name to ``(T,)`` accuracies in [0, 1], for instance :func:`accuracy_per_stage`; NaN leaves a gap. The runs
            may differ in length.
        title: Text above the figure.
        ax: Axes to draw into; a figure of column width by default.
        unit: What the values are, if not accuracies.

    Raises:
        ValueError: If there is no run, or more than can be told apart.
    """
    draw.refuse_too_many(runs)
    count = max(len(values) for values in runs.values())
    figure, ax = draw.new_axes(ax, (COLUMN_WIDTH, COLUMN_WIDTH * 0.68))
    curves = {name: (range(len(values)), [unit.factor * float(v) for v in values]) for name, values in runs.items()}
    marker = "o" if count <= MAX_PRINTED else None
    ends = draw.draw_runs(ax, curves, marker=marker, ms=2.6, mew=0, clip_on=False)
    limits = unit.limits([float(v) for values in runs.values() for v in values])
    draw.frame(ax, title, "After task", "Average accuracy (%)" if unit.metric is None else f"Average {unit.label}")
    draw.stage_axis(ax, count)
    draw.percent_axis(ax, unit, limits)
    draw.label_ends(ax, count - 1, ends, limits)
    return figure, ax


def plot_metric_curve(values: Tensor | Sequence[float], name: str, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """One metric after every task, as a fraction; NaN leaves a gap.

    Args:
        values: ``(k,)``.
        name: What the vertical axis shows.
        ax: Axes to draw into; a figure of column width by default.
    """
    line = to_float64(values).cpu()
    figure, ax = draw.new_axes(ax, (COLUMN_WIDTH, COLUMN_WIDTH * 0.62))
    ax.plot(range(len(line)), line.tolist(), color="black", lw=1.6, marker="o", ms=3)
    draw.frame(ax, None, "After task", name)
    draw.stage_axis(ax, max(len(line), 1))
    ax.grid(axis="y", color="0.9", lw=0.5)
    ax.set_axisbelow(True)
    return figure, ax


def _task_colours(count: int) -> tuple[Any, list[Any]]:
    """A colour map from the first task to the last, and each task's colour; the pale yellow end is left out."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    viridis = colormaps["viridis"]
    colormap = ListedColormap([viridis(0.8 * step / 255) for step in range(256)])
    return colormap, [colormap(j / max(count - 1, 1)) for j in range(count)]


def _thin(dense: bool) -> dict[str, Any]:
    return {"lw": 0.5, "ms": 0.0, "alpha": 0.75} if dense else {"lw": 0.9, "ms": 2.4}
