"""Draw the accuracy over a run with its task ends and exposed classes; as in :mod:`lightning_cl.reports.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_cl.metrics.functional._matrix import RowLike, to_float64
from lightning_cl.reports import drawing as draw
from lightning_cl.reports.plots import COLUMN_WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EXPOSED = "0.72"
_MARKED = 40  # evaluations; beyond, marks would touch


def plot_anytime_curve(
    samples_seen: Sequence[int] | Tensor,
    accuracy: RowLike,
    *,
    exposed_classes: Sequence[int] | None = None,
    task_ends: Sequence[int] = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Accuracy over the training samples seen, with the task ends as dotted lines and the exposed classes as steps.

    Args:
        samples_seen: ``(P,)``.
        accuracy: ``(P,)`` in [0, 1]; NaN leaves a gap.
        exposed_classes: ``(P,)`` number of exposed classes, on an axis of its own to the right.
        task_ends: Samples seen at the end of each task; the last one is the end of the stream.
        title: Text above the figure.
        ax: Axes to draw into; a figure of column width by default.

    Raises:
        ValueError: If there is not one value for each evaluation.
    """
    seen, percent = _points(samples_seen, accuracy)
    figure, ax = draw.new_axes(ax, (COLUMN_WIDTH, COLUMN_WIDTH * 0.62))
    if exposed_classes is not None:
        if len(exposed_classes) != len(seen):
            raise ValueError(
                f"`exposed_classes` has {len(exposed_classes)} entries but there are {len(seen)} evaluations."
            )
        _exposed_steps(ax, seen, [int(n) for n in exposed_classes])
    ends = [int(end) for end in task_ends]
    marked = len(seen) <= _MARKED
    ax.plot(seen, percent, color=draw.COLOURS[0], lw=1.3, marker="o" if marked else None, ms=2.6, mew=0, clip_on=False)
    frame_samples(ax, title, max([*seen, *ends, 1]))
    mark_tasks(ax, ends)
    return figure, ax


def plot_section(section: Mapping[str, Any]) -> tuple[Figure, Axes]:
    """:func:`plot_anytime_curve` of a report's section ``anytime``.

    Args:
        section: As :meth:`AnytimeCurve.section` gives it; None in a value is "not measured".
    """
    curve = section["curve"]
    accuracy = [float("nan") if value is None else value for value in curve["accuracy"]]
    return plot_anytime_curve(
        curve["samples_seen"], accuracy, exposed_classes=curve["exposed_classes"], task_ends=section["task_ends"]
    )


def _points(samples_seen: Sequence[int] | Tensor, accuracy: RowLike) -> tuple[list[int], list[float]]:
    seen = [int(n) for n in samples_seen]
    percent: list[float] = (100 * to_float64(accuracy)).cpu().flatten().tolist()
    if len(seen) != len(percent):
        raise ValueError(f"`samples_seen` has {len(seen)} entries but `accuracy` has {len(percent)}; give as many.")
    return seen, percent


def frame_samples(ax: Axes, title: str | None, last: int) -> None:
    """Name the axes of accuracy over the samples seen, and set their ticks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    draw.frame(ax, title, "Training samples seen", "Accuracy (%)")
    ax.set_xlim(0, last)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
    draw.percent_axis(ax)


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def mark_tasks(ax: Axes, ends: Sequence[int]) -> None:
    """A dotted line where one task gives way to the next, and above it the numbers of the tasks that have room."""
    for end in ends[:-1]:
        # many lines together must not be darker than the curve
        ax.axvline(end, color="0.45" if len(ends) <= 20 else "0.75", lw=0.6, ls=(0, (1, 2)), zorder=1)
    low, high = ax.get_xlim()
    spans = enumerate(zip([0, *ends[:-1]], ends, strict=False))
    shown = [(task, (start + end) / 2) for task, (start, end) in spans if end - start >= 0.04 * (high - low)]
    style: dict[str, Any] = {"va": "bottom", "fontsize": draw.SMALL - 1, "color": draw.GREY, "annotation_clip": False}
    offset: dict[str, Any] = {"textcoords": "offset points", "xycoords": ax.get_xaxis_transform(), **style}
    for task, middle in shown:
        ax.annotate(str(task + 1), xy=(middle, 1.0), xytext=(0, 3), ha="center", **offset)
    if shown:
        ax.annotate("task", xy=(low, 1.0), xytext=(-3, 3), ha="right", **offset)
        ax.set_title(ax.get_title(), fontsize=draw.SMALL + 2, pad=6 + 1.5 * draw.SMALL)  # above the numbers


def _exposed_steps(ax: Axes, seen: Sequence[int], exposed: Sequence[int]) -> None:
    """A light step line on an axis to the right, behind the curve."""
    right: Any = ax.twinx()
    right.set_zorder(ax.get_zorder() - 1)
    ax.patch.set_visible(False)  # or it would hide what is behind
    right.step([0, *seen], [0, *exposed], where="pre", color=_EXPOSED, lw=1.0)
    right.fill_between([0, *seen], [0, *exposed], step="pre", color=_EXPOSED, alpha=0.25, lw=0)
    top = max([*exposed, 1])
    right.set_ylim(0, 1.01 * top)
    right.set_yticks(draw.spaced(top + 1, most=6))
    right.set_ylabel("Exposed classes", fontsize=draw.SMALL + 1, color="0.45")
    right.tick_params(labelsize=draw.SMALL, length=2, width=0.5, color=draw.GREY, labelcolor="0.45")
    for side, spine in right.spines.items():
        spine.set_visible(side == "right")
        spine.set_linewidth(0.5)
        spine.set_color(_EXPOSED)
