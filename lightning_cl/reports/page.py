"""Fill the HTML page of one or several reports; its looks are in ``templates/``, where everything is escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.reports import drawing as draw
from lightning_cl.reports.anytime_plots import plot_section
from lightning_cl.reports.comparison_plots import plot_anytime_comparison
from lightning_cl.reports.fact_pictures import fact_pictures
from lightning_cl.reports.files import jsonable
from lightning_cl.reports.plots import plot_accuracy_curves, plot_stage_comparison
from lightning_cl.reports.protocol import CHECKS, ProtocolCard
from lightning_cl.reports.rendering import render
from lightning_cl.reports.report import SPACES, ContinualReport
from lightning_cl.reports.tables import ranges, shown
from lightning_cl.reports.units import ACCURACY

MOST_COMPARED = 28  # runs that can be told apart in one picture
MOST_SHOWN = 100  # tasks in a table; of a longer stream the first and the last
#: Metrics that are always shown; the others are folded away.
MAIN = (
    "average_accuracy", "average_incremental_accuracy", "learning_accuracy", "backward_transfer", "forgetting",
    "forward_transfer", "performance_drop", "base_accuracy", "novel_accuracy", "harmonic_mean",
    "average_session_accuracy", "a_auc", "a_avg", "a_last", "f_last",
    "average_value", "average_incremental_value", "learning_value",
)  # fmt: skip
_SHORT = {"a_auc": "A_AUC", "a_avg": "A_Avg", "a_last": "A_Last", "f_last": "F_Last", "min_acc": "min-ACC",
          "wc_acc": "WC-ACC"}  # fmt: skip
_SHORT_SPACES = {"class_il": "class-IL", "task_il": "task-IL", "few_shot": "few-shot", "forget": "on request",
                 "anytime": "any time"}  # fmt: skip


def page(reports: Mapping[str, ContinualReport], configs: Mapping[str, str] | None = None) -> str:
    """The whole page: one report, or several side by side under a comparison.

    Args:
        reports: Name to report, in the order of the page.
        configs: Name to the text of the run's configuration, of those that have one.

    Raises:
        ValueError: If there is none, or more than can be told apart.
    """
    if not 1 <= len(reports) <= MOST_COMPARED:
        raise ValueError(f"{len(reports)} reports were given; 1 to {MOST_COMPARED} fit on one page.")
    several = len(reports) > 1
    title = "Continual learning: " + (f"{len(reports)} runs" if several else next(iter(reports)))
    runs = [_run(name, report, (configs or {}).get(name, "")) for name, report in reports.items()]
    comparison = _comparison(reports, runs) if several else None
    return render(
        "page.html",
        _FILTERS,
        accuracy=ACCURACY,
        title=title,
        runs=runs,
        comparison=comparison,
        spaces=SPACES,
        said_of_checks=CHECKS,
    )


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, equal ones told apart by a number."""
    seen = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if count == 1 else f"{name} ({count})" for name, count in zip(names, seen, strict=True)]


def _comparison(reports: Mapping[str, ContinualReport], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stages = {name: accuracy_per_stage(r.matrix, sizes=r.has_data).tolist() for name, r in reports.items()}
    units, pictures = {report.unit for report in reports.values()}, []
    if len(units) == 1:  # else they have no axis in common
        unit = units.pop()
        drawn = f"Average {unit.metric or 'accuracy'} after every task, all runs"
        pictures = [_picture(plot_stage_comparison(stages, unit=unit), drawn)]
    timed = {name: report for name, report in reports.items() if report.anytime is not None}
    if len(timed) > 1:
        pictures.append(_picture(plot_anytime_comparison(timed), "Accuracy over the samples seen, all runs"))
    return {
        "metrics": list(dict.fromkeys(name for run in runs for name in run["metrics"])),
        "pictures": pictures,
    }


def _run(name: str, report: ContinualReport, config: str) -> dict[str, Any]:
    anytime = report.anytime or {"metrics": {}, "curve": {"samples_seen": []}}
    means = accuracy_per_stage(report.matrix, sizes=report.has_data)
    pictures = [
        _picture(
            plot_accuracy_curves(report.matrix, seen_average=means, unit=report.unit),
            f"{report.metric or 'Accuracy'} on each task over time",
        ),
        *(_picture(plot_section(anytime), "Accuracy over the training samples seen")
          for _ in range(bool(anytime["curve"]["samples_seen"]))),
        *(_picture(found.draw(), found.description) for found in fact_pictures(report.facts, report.class_names)),
    ]  # fmt: skip
    return {
        "name": name,
        "report": report,
        "unit": report.unit,
        "limits": report.unit.limits(report.matrix.flatten().tolist()),
        "matrix": report.matrix.tolist(),
        "means": means.tolist(),
        "shown": shown(len(report.matrix), MOST_SHOWN),
        "classes": [_classes_of(report, task) for task in range(len(report.matrix))],
        "pictures": pictures,
        "metrics": {**report.metrics, **{f"anytime/{name}": value for name, value in anytime["metrics"].items()}},
        "definitions": {**report.definitions, **anytime.get("definitions", {})},
        "card": None if report.protocol is None else ProtocolCard.from_dict(report.protocol),
        "classes_of_tasks": {f"task {task}": held for task, held in enumerate(report.task_classes, 1)},
        "config": config,
    }


def _classes_of(report: ContinualReport, task: int) -> str:
    held = report.task_classes[task] if task < len(report.task_classes) else []
    names = [report.class_names[c] if c < len(report.class_names) else str(c) for c in held[:12]]
    return ", ".join(names) + (f" and {len(held) - 12} more" if len(held) > 12 else "")


def _picture(drawn: tuple[Any, Any], description: str) -> tuple[str, str]:
    return draw.svg_address(drawn[0]), description


def _readable(name: str) -> str:
    """``class_il/average_accuracy`` as ``class-IL: average accuracy``."""
    space, _, metric = name.rpartition("/")
    return f"{_SHORT_SPACES.get(space, space)}: " + _SHORT.get(metric, metric.replace("_", " "))


def _definition(name: str, definitions: Mapping[str, str]) -> str:
    """By name; of a windowed metric by its name without the window."""
    short = name.rpartition("/")[2]
    return definitions.get(short) or definitions.get(re.sub(r"_\d+$", "", short), "")


def _plain(value: Any) -> str:
    plain = jsonable(value)
    if isinstance(plain, list) and len(plain) > 1 and all(item == plain[0] for item in plain):
        return f"{json.dumps(plain[0], ensure_ascii=False)} each"
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _colours(value: float, run: Mapping[str, Any]) -> str:
    """The style of a matrix cell: the colour map's ground, and ink that can be read on it."""
    from matplotlib.colors import to_hex

    colour = run["unit"].colour(run["unit"].factor * value, run["limits"])
    return f"background:{to_hex(colour)};color:{draw.ink(colour)}"


_FILTERS: dict[str, Callable[..., Any]] = {
    "is_main": lambda name: name.rpartition("/")[2] in MAIN,
    "colours": _colours,
    "definition": _definition,
    "shown": lambda value, unit=ACCURACY: unit.text(value) or "–",
    "plain": _plain,
    "ranges": ranges,
    "readable": _readable,
}
