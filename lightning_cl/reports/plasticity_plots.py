"""Draw what ``PlasticityMeter`` measured over a run; as in :mod:`lightning_cl.reports.plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_cl.reports import drawing as draw
from lightning_cl.reports.plots import COLUMN_WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Measures, what their axes are called, and factors.
_PANELS = {
    "fresh_task_loss": ("Loss on a fresh task (nats)", 1),
    "dormant_units": ("Dormant units (%)", 100),
    "active_units": ("Active units (%)", 100),
    "effective_rank": ("Effective rank", 1),
    "weight_norm": ("Norm of weights", 1),
    "gradient_norm": ("Norm of gradient", 1),
}


def plot_plasticity(series: Mapping[str, Sequence[Any]]) -> tuple[Figure, Any]:
    """Six panels over the training batches, with a thin line at the start of each task.

    Args:
        series: ``batch`` and ``task``, and for each measure as many values; None or NaN: not measured then.

    Raises:
        ValueError: If a measure has another number of values than ``batch``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    batches, tasks = list(series["batch"]), list(series["task"])
    for name in ("task", *_PANELS):
        if len(series[name]) != len(batches):
            raise ValueError(f"`{name}` has {len(series[name])} entries but `batch` has {len(batches)}; give as many.")
    starts = [batches[i] for i in range(1, len(tasks)) if tasks[i] != tasks[i - 1]]
    figure = Figure(figsize=(2 * COLUMN_WIDTH, COLUMN_WIDTH * 1.1), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3, sharex=True).flatten()
    for place, (ax, (name, (label, factor))) in enumerate(zip(axes, _PANELS.items(), strict=True)):
        points = [(b, factor * v) for b, v in zip(batches, series[name], strict=True) if v is not None and v == v]
        for start in starts:
            ax.axvline(start, color="0.45" if len(starts) <= 20 else "0.85", lw=0.4, ls=(0, (1, 2)), zorder=1)
        ax.plot(
            [b for b, _ in points], [v for _, v in points], color=draw.COLOURS[0], lw=1.1, marker="o", ms=1.8, mew=0
        )
        draw.frame(ax, None, "Training batches" if place >= 3 else "", label)
        if points and all(math.isfinite(v) for _, v in points):
            ax.set_ylim(bottom=0)
    return figure, axes
