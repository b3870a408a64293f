"""Reports as one HTML page that needs nothing but itself: no network, pictures inside, matrices as tables.

Everything that comes from a run (names, notes, configurations) is escaped.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lightning_cl.metrics import _drawing as draw
from lightning_cl.metrics._files import jsonable
from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.metrics.html_style import SCRIPT, STYLE
from lightning_cl.metrics.plots import COLORMAP, plot_accuracy_curves, plot_stage_comparison
from lightning_cl.metrics.plots_anytime import plot_anytime_comparison, plot_section
from lightning_cl.metrics.protocol import CHECKS, ProtocolCard
from lightning_cl.metrics.report import ContinualReport
from lightning_cl.metrics.summary import DEFINITIONS, FEW_SHOT_DEFINITIONS
from lightning_cl.metrics.tables import percent
from lightning_cl.metrics.tables import shown as shown_tasks

MOST_SHOWN = 100  # tasks in a table; of a longer stream the first and the last
MOST_COMPARED = 28  # runs that can be told apart in one picture
#: Metrics that are always shown; the others are folded away.
MAIN = (
    "average_accuracy", "average_incremental_accuracy", "learning_accuracy", "backward_transfer", "forgetting",
    "forward_transfer", "performance_drop", "base_accuracy", "novel_accuracy", "harmonic_mean",
    "average_session_accuracy", "a_auc", "a_avg", "a_last", "f_last",
)  # fmt: skip
_SHORT = {"a_auc": "A_AUC", "a_avg": "A_Avg", "a_last": "A_Last", "f_last": "F_Last", "min_acc": "min-ACC",
          "wc_acc": "WC-ACC"}  # fmt: skip
_SPACES = {"class_il": "class-incremental", "task_il": "task-incremental", "domain_il": "domain-incremental"}


def page(reports: Mapping[str, ContinualReport]) -> str:
    """The whole page: one report, or several side by side under a comparison.

    Args:
        reports: Name to report, in the order of the page.

    Raises:
        ValueError: If there is none, or more than can be told apart.
    """
    if not 1 <= len(reports) <= MOST_COMPARED:
        raise ValueError(f"{len(reports)} reports were given; 1 to {MOST_COMPARED} fit on one page.")
    several = len(reports) > 1
    title = "Continual learning: " + (f"{len(reports)} runs" if several else next(iter(reports)))
    parts = [_comparison(reports)] if several else []
    parts += [_run(name, report, several) for name, report in reports.items()]
    body = parts[0] + f'<div class="runs">{"".join(parts[1:])}</div>' if several else "".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


# ---------------------------------------------------------------------- several runs


def _comparison(reports: Mapping[str, ContinualReport]) -> str:
    hashes = {report.stream_hash for report in reports.values()}
    spaces = {report.label_space for report in reports.values()}
    warnings = []
    if len(hashes) > 1:
        warnings.append("These runs are not on the same stream (their hashes differ): compare them with care.")
    if len(spaces) > 1:
        warnings.append("The label spaces differ: " + ", ".join(_SPACES[space] for space in sorted(spaces)) + ".")
    partial = [name for name, report in reports.items() if report.partial_stages]
    if partial:
        warnings.append(f"Only part of the test data was used in: {', '.join(partial)}.")
    rows = {
        name: f"<tr><th scope='row'>{escape(_readable(name))}</th>"
        + "".join(f"<td class='num'>{_value(_metrics(report).get(name))}</td>" for report in reports.values())
        + "</tr>"
        for name in _metric_names(reports.values())
    }
    told = {name: r.stream_hash[:12] if r.stream_hash else "-" for name, r in reports.items()}
    facts = [
        _facts_row("stream", told.values()),
        _facts_row("methods", (", ".join(report.methods) or "none" for report in reports.values())),
        _facts_row("protocol", (_verdict(report) for report in reports.values())),
    ]
    head = "<tr><th></th>" + "".join(f"<th scope='col' class='num'>{escape(name)}</th>" for name in reports) + "</tr>"
    pictures = [_picture(plot_stage_comparison(_stages(reports))[0], "Average accuracy after every task, all runs")]
    timed = {name: report for name, report in reports.items() if report.anytime is not None}
    if len(timed) > 1:
        pictures.append(_picture(plot_anytime_comparison(timed)[0], "Accuracy over the samples seen, all runs"))
    return (
        "<section class='card'><h2>Comparison (%)</h2>"
        + "".join(f"<p class='warning'>{escape(text)}</p>" for text in warnings)
        + _folded(rows, head, facts)
        + f"<div class='pictures'>{''.join(pictures)}</div></section>"
    )


def _stages(reports: Mapping[str, ContinualReport]) -> dict[str, list[float]]:
    return {name: accuracy_per_stage(r.matrix, sizes=r.has_data).tolist() for name, r in reports.items()}


def _facts_row(name: str, values: Iterable[str]) -> str:
    cells = "".join(f"<td class='num'>{escape(value)}</td>" for value in values)
    return f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>"


def _verdict(report: ContinualReport) -> str:
    if report.protocol is None:
        return "not checked"
    failed = len(ProtocolCard.from_dict(report.protocol).violations)
    return f"{failed} violated" if failed else "passed"


# ---------------------------------------------------------------------- one run


def _run(name: str, report: ContinualReport, several: bool) -> str:
    heading = f"<h2>{escape(name)}</h2>" if several else ""
    parts = [
        _headline(report),
        _matrix(report),
        _curves(report),
        _summary(report),
        _protocol(report),
        _configuration(report),
    ]
    return f"<article>{heading}{''.join(parts)}</article>"


def _headline(report: ContinualReport) -> str:
    space, metrics = report.matrix_name, report.metrics
    shown = {
        "average accuracy": metrics.get(f"{space}/average_accuracy"),
        "incremental accuracy": metrics.get(f"{space}/average_incremental_accuracy"),
        "forgetting": metrics.get(f"{space}/forgetting"),
    }
    if report.anytime is not None:
        shown["A_AUC (at any time)"] = report.anytime["metrics"].get("a_auc")
    tiles = [
        f"<div class='tile'><b>{_value(value)}<small>{'' if value is None else '&thinsp;%'}</small></b>"
        f"<span>{escape(label)}</span></div>"
        for label, value in shown.items()
    ]
    tasks, classes = len(report.matrix), len({c for held in report.task_classes for c in held})
    methods = ", ".join(report.methods) or "no method"
    text = f"{methods}; {tasks} tasks" + (f", {classes} classes" if classes else "")
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    if report.partial_stages:
        stages = ", ".join(map(str, report.partial_stages))
        notes += f"<li>Only part of the test data was used after task {stages}.</li>"
    return (
        f"<section class='card'><p class='lead'>{escape(text)}, {_SPACES[report.label_space]}</p>"
        f"<div class='tiles'>{''.join(tiles)}</div>{f'<ul class=notes>{notes}</ul>' if notes else ''}</section>"
    )


def _matrix(report: ContinualReport) -> str:
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
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if value != value:
        return "<td></td>"
    colour = colormaps[COLORMAP](min(max(value, 0.0), 1.0))
    text = f"{100 * value:.0f}" if whole else percent(value)
    return f"<td style='background:{to_hex(colour)};color:{draw.ink(colour)}' title='{percent(value)}'>{text}</td>"


def _classes_of(report: ContinualReport, task: int) -> str:
    held = report.task_classes[task] if task < len(report.task_classes) else []
    names = [report.class_names[c] if c < len(report.class_names) else str(c) for c in held[:12]]
    more = f" and {len(held) - 12} more" if len(held) > 12 else ""
    return f" title='{escape(', '.join(names) + more, quote=True)}'" if names else ""


def _curves(report: ContinualReport) -> str:
    means = accuracy_per_stage(report.matrix, sizes=report.has_data)
    pictures = [_picture(plot_accuracy_curves(report.matrix, seen_average=means)[0], "Accuracy on each task over time")]
    if report.anytime is not None and report.anytime["curve"]["samples_seen"]:
        pictures.append(_picture(plot_section(report.anytime)[0], "Accuracy over the training samples seen"))
    return f"<section class='card'><h3>Curves</h3><div class='pictures'>{''.join(pictures)}</div></section>"


def _summary(report: ContinualReport) -> str:
    definitions = {**DEFINITIONS, **FEW_SHOT_DEFINITIONS}
    if report.anytime is not None:
        definitions |= report.anytime.get("definitions", {})
    rows = {
        name: f"<tr><th scope='row'>{escape(_readable(name))}</th><td class='num'>{_value(value)}</td>"
        f"<td class='small'>{escape(_definition(name, definitions))}</td></tr>"
        for name, value in _metrics(report).items()
    }
    head = "<tr><th scope='col'>metric</th><th scope='col' class='num'>value</th><th scope='col'>definition</th></tr>"
    return f"<section class='card'><h3>Metrics (%)</h3>{_folded(rows, head)}</section>"


def _definition(name: str, definitions: Mapping[str, str]) -> str:
    """By name; of a windowed metric by its name without the window."""
    short = name.rpartition("/")[2]
    return definitions.get(short) or definitions.get(re.sub(r"_\d+$", "", short), "")


def _folded(rows: Mapping[str, str], head: str, facts: Sequence[str] = ()) -> str:
    """A table of the main metrics, and all others folded away below it."""
    main = [row for name, row in rows.items() if name.rpartition("/")[2] in MAIN]
    more = [row for name, row in rows.items() if name.rpartition("/")[2] not in MAIN]
    table = "<div class='scroll'><table class='summary'><thead>{}</thead><tbody>{}</tbody></table></div>"
    shown = table.format(head, "".join([*main, *facts]))
    if not more:
        return shown
    return f"{shown}<details><summary>{len(more)} more</summary>{table.format(head, ''.join(more))}</details>"


def _protocol(report: ContinualReport) -> str:
    if report.protocol is None:
        text = "Not checked in this run. <code>lightning-cl check RUN_DIR</code> looks at it, and the callback "
        return f"<section class='card'><h3>Protocol</h3><p>{text}<code>ProtocolGuard</code> in every run.</p></section>"
    rows = []
    for check in ProtocolCard.from_dict(report.protocol).checks:
        mark = {"pass": "✓ pass", "fail": "✗ fail", "not checked": "– not checked"}[check.result]
        said = CHECKS.get(check.name, "")
        remark = "; ".join(text for text in (check.compared, check.message) if text)
        rows.append(
            f"<tr class='{check.result.replace(' ', '-')}'><th scope='row'>{escape(check.name)}</th><td>{mark}</td>"
            f"<td>{escape(said)}<br><span class='small'>{escape(remark)}</span></td></tr>"
        )
    return (
        f"<section class='card'><h3>Protocol: {escape(_verdict(report))}</h3><div class='scroll'>"
        f"<table class='protocol'><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _configuration(report: ContinualReport) -> str:
    stream: dict[str, Any] = {
        "hash": report.stream_hash or "unknown",
        "tasks": len(report.matrix),
        "label space": _SPACES[report.label_space],
        "training samples seen": report.samples_seen,
        "test samples of each task": None if report.sizes is None else report.sizes.tolist(),
    }
    classes = {f"task {t}": held for t, held in enumerate(report.task_classes)}
    sizes = {"trainable": report.trainable_parameters, "all": report.total_parameters}
    blocks = [
        ("Stream", stream, True),
        ("Classes of each task", classes, False),
        *((f"Method: {name}", dict(config), True) for name, config in report.methods.items()),
        *((f"Facts of {name}", dict(facts), True) for name, facts in report.facts.items()),
        ("Parameters", sizes, True),
        ("Versions", dict(report.versions), True),
    ]
    shown = [
        f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>{_definition_list(values)}</details>"
        for title, values, is_open in blocks
        if values
    ]
    return f"<section class='card'><h3>Stream, methods, versions</h3>{''.join(shown)}</section>"


# ---------------------------------------------------------------------- parts


def _metrics(report: ContinualReport) -> dict[str, float | None]:
    anytime = {} if report.anytime is None else report.anytime["metrics"]
    return {**report.metrics, **{f"anytime/{name}": value for name, value in anytime.items()}}


def _metric_names(reports: Iterable[ContinualReport]) -> list[str]:
    return list(dict.fromkeys(name for report in reports for name in _metrics(report)))


def _readable(name: str) -> str:
    space, _, metric = name.rpartition("/")
    space = {"class_il": "class-IL: ", "task_il": "task-IL: ", "few_shot": "few-shot: ", "anytime": "any time: "}[space]
    return space + _SHORT.get(metric, metric.replace("_", " "))


def _value(value: float | None) -> str:
    return "–" if value is None or value != value else percent(value)


def _definition_list(values: Mapping[str, Any]) -> str:
    items = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(_text(value))}</dd>" for name, value in values.items())
    return f"<dl>{items}</dl>"


def _text(value: Any) -> str:
    plain = jsonable(value)
    if isinstance(plain, list) and len(plain) > 1 and all(item == plain[0] for item in plain):
        return f"{json.dumps(plain[0], ensure_ascii=False)} each"
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _picture(figure: Any, description: str) -> str:
    """An SVG as a data address: what is inside cannot meet names of other pictures, and text is drawn as outlines."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    said = escape(description, quote=True)
    image = f"<img src='data:image/svg+xml;base64,{encoded}' alt='{said}'>"
    return f"<figure>{image}<figcaption>{said}</figcaption></figure>"


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, equal ones told apart by a number."""
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return unique
