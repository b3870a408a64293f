"""Parts of the page in ``html.py``: names of metrics, looks of values, tables that fold, the matrix, pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.reports import drawing as draw
from lightning_cl.reports.files import jsonable
from lightning_cl.reports.plots import COLORMAP
from lightning_cl.reports.protocol import ProtocolCard
from lightning_cl.reports.report import ContinualReport
from lightning_cl.reports.tables import percent
from lightning_cl.reports.tables import shown as shown_tasks

MOST_SHOWN = 100  # tasks in a table; of a longer stream the first and the last
#: Metrics that are always shown; the others are folded away.
MAIN = (
    "average_accuracy", "average_incremental_accuracy", "learning_accuracy", "backward_transfer", "forgetting",
    "forward_transfer", "performance_drop", "base_accuracy", "novel_accuracy", "harmonic_mean",
    "average_session_accuracy", "a_auc", "a_avg", "a_last", "f_last",
)  # fmt: skip
_SHORT = {"a_auc": "A_AUC", "a_avg": "A_Avg", "a_last": "A_Last", "f_last": "F_Last", "min_acc": "min-ACC",
          "wc_acc": "WC-ACC"}  # fmt: skip


def metrics_of(report: ContinualReport) -> dict[str, float | None]:
    """All metrics of a report, those inside the run as ``anytime/...``."""
    anytime = {} if report.anytime is None else report.anytime["metrics"]
    return {**report.metrics, **{f"anytime/{name}": value for name, value in anytime.items()}}


def metric_names(reports: Iterable[ContinualReport]) -> list[str]:
    """Names of the metrics of all reports, each once."""
    return list(dict.fromkeys(name for report in reports for name in metrics_of(report)))


def readable(name: str) -> str:
    """``class_il/average_accuracy`` as ``class-IL: average accuracy``."""
    space, _, metric = name.rpartition("/")
    spaces = {"class_il": "class-IL", "task_il": "task-IL", "few_shot": "few-shot", "anytime": "any time"}
    return f"{spaces.get(space, space)}: " + _SHORT.get(metric, metric.replace("_", " "))


def shown_value(value: float | None) -> str:
    """In percent; a dash for what is not defined or not measured."""
    return "–" if value is None or value != value else percent(value)


def definition_list(values: Mapping[str, Any]) -> str:
    """Names and plain values."""
    items = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(_text(value))}</dd>" for name, value in values.items())
    return f"<dl>{items}</dl>"


def _text(value: Any) -> str:
    plain = jsonable(value)
    if isinstance(plain, list) and len(plain) > 1 and all(item == plain[0] for item in plain):
        return f"{json.dumps(plain[0], ensure_ascii=False)} each"
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def picture(figure: Any, description: str) -> str:
    """An SVG as a data address: what is inside cannot meet names of other pictures, and text is drawn as outlines."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    said = escape(description, quote=True)
    image = f"<img src='data:image/svg+xml;base64,{encoded}' alt='{said}'>"
    return f"<figure>{image}<figcaption>{said}</figcaption></figure>"


def definition(name: str, definitions: Mapping[str, str]) -> str:
    """By name; of a windowed metric by its name without the window."""
    short = name.rpartition("/")[2]
    return definitions.get(short) or definitions.get(re.sub(r"_\d+$", "", short), "")


def folded(rows: Mapping[str, str], head: str, facts: Sequence[str] = ()) -> str:
    """A table of the main metrics, and all others folded away below it."""
    main = [row for name, row in rows.items() if name.rpartition("/")[2] in MAIN]
    more = [row for name, row in rows.items() if name.rpartition("/")[2] not in MAIN]
    table = "<div class='scroll'><table class='summary'><thead>{}</thead><tbody>{}</tbody></table></div>"
    shown = table.format(head, "".join([*main, *facts]))
    if not more:
        return shown
    return f"{shown}<details><summary>{len(more)} more</summary>{table.format(head, ''.join(more))}</details>"


def verdict(report: ContinualReport) -> str:
    """Of the protocol card, in two words."""
    if report.protocol is None:
        return "not checked"
    failed = len(ProtocolCard.from_dict(report.protocol).violations)
    return f"{failed} violated" if failed else "passed"


def matrix_table(report: ContinualReport) -> str:
    """A real table, with the colours of the picture; the mean of the seen tasks is the last column."""
    matrix, means = report.matrix.tolist(), accuracy_per_stage(report.matrix, sizes=report.has_data).tolist()
    count = len(matrix)
    size = " dense" if count > 10 else ""
    shown = shown_tasks(count, MOST_SHOWN)
    head = "".join("<th>…</th>" if t is None else f"<th scope='col'{_classes_of(report, t)}>{t}</th>" for t in shown)
    rows = []
    for stage in shown:
        if stage is None:
            rows.append(f"<tr><th>…</th>{'<td></td>' * (len(shown) + 1)}</tr>")
            continue
        cells = "".join("<td>…</td>" if t is None else _cell(matrix[stage][t], count > 20) for t in shown)
        rows.append(f"<tr><th scope='row'>{stage}</th>{cells}<td class='mean'>{percent(means[stage])}</td></tr>")
    return (
        "<section class='card'><h3>Accuracy matrix (%)</h3>"
        "<p class='small'>Row: after training on a task. Column: accuracy on the test data of a task. Last column: "
        "mean over the tasks seen so far. Empty: not measured.</p>"
        f"<div class='scroll'><table class='matrix{size}'><thead><tr><th scope='col'>after</th>{head}"
        f"<th scope='col'>mean</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cell(value: float, whole: bool) -> str:
    if value != value:
        return "<td></td>"
    ground, ink = _colours(min(max(int(256 * value), 0), 255))
    text = f"{100 * value:.0f}" if whole else percent(value)
    return f"<td style='background:{ground};color:{ink}' title='{percent(value)}'>{text}</td>"


@cache
def _colours(level: int) -> tuple[str, str]:
    """Of the ground and of what is written on it, for one of the colour map's 256 levels."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colour = colormaps[COLORMAP](level)
    return to_hex(colour), draw.ink(colour)


def _classes_of(report: ContinualReport, task: int) -> str:
    held = report.task_classes[task] if task < len(report.task_classes) else []
    names = [report.class_names[c] if c < len(report.class_names) else str(c) for c in held[:12]]
    more = f" and {len(held) - 12} more" if len(held) > 12 else ""
    return f" title='{escape(', '.join(names) + more, quote=True)}'" if names else ""
