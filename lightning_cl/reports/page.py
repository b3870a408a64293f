"""Reports as one HTML page that needs nothing but itself: no network, pictures inside, matrices as tables.

Everything that comes from a run (names, notes, configurations) is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.metrics.functional.summary import DEFINITIONS, FEW_SHOT_DEFINITIONS
from lightning_cl.reports.anytime_plots import plot_anytime_comparison, plot_section
from lightning_cl.reports.page_parts import (
    definition,
    definition_list,
    folded,
    matrix_table,
    metric_names,
    metrics_of,
    picture,
    readable,
    shown_value,
    verdict,
)
from lightning_cl.reports.page_style import SCRIPT, STYLE
from lightning_cl.reports.plots import plot_accuracy_curves, plot_stage_comparison
from lightning_cl.reports.protocol import CHECKS, ProtocolCard
from lightning_cl.reports.report import ContinualReport
from lightning_cl.reports.tables import SPACES

MOST_COMPARED = 28  # runs that can be told apart in one picture


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
    parts = [_comparison(reports)] if several else []
    parts += [_run(name, report, several, (configs or {}).get(name, "")) for name, report in reports.items()]
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
        warnings.append("The label spaces differ: " + ", ".join(SPACES[space] for space in sorted(spaces)) + ".")
    partial = [name for name, report in reports.items() if report.partial_stages]
    if partial:
        warnings.append(f"Only part of the test data was used in: {', '.join(partial)}.")
    rows = {
        name: f"<tr><th scope='row'>{escape(readable(name))}</th>"
        + "".join(f"<td class='num'>{shown_value(metrics_of(report).get(name))}</td>" for report in reports.values())
        + "</tr>"
        for name in metric_names(reports.values())
    }
    told = {name: r.stream_hash[:12] if r.stream_hash else "-" for name, r in reports.items()}
    facts = [
        _facts_row("stream", told.values()),
        _facts_row("methods", (", ".join(report.methods) or "none" for report in reports.values())),
        _facts_row("protocol", (verdict(report) for report in reports.values())),
    ]
    named = "".join(f"<th scope='col' class='num word'>{escape(name)}</th>" for name in reports)
    pictures = [picture(plot_stage_comparison(_stages(reports))[0], "Average accuracy after every task, all runs")]
    timed = {name: report for name, report in reports.items() if report.anytime is not None}
    if len(timed) > 1:
        pictures.append(picture(plot_anytime_comparison(timed)[0], "Accuracy over the samples seen, all runs"))
    return (
        "<section class='card'><h2>Comparison (%)</h2>"
        + "".join(f"<p class='warning'>{escape(text)}</p>" for text in warnings)
        + folded(rows, f"<tr><th></th>{named}</tr>", facts)
        + f"<div class='pictures'>{''.join(pictures)}</div></section>"
    )


def _stages(reports: Mapping[str, ContinualReport]) -> dict[str, list[float]]:
    return {name: accuracy_per_stage(r.matrix, sizes=r.has_data).tolist() for name, r in reports.items()}


def _facts_row(name: str, values: Iterable[str]) -> str:
    cells = "".join(f"<td class='num word'>{escape(value)}</td>" for value in values)
    return f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>"


# ---------------------------------------------------------------------- one run


def _run(name: str, report: ContinualReport, several: bool, config: str) -> str:
    heading = f"<h2>{escape(name)}</h2>" if several else ""
    parts = [
        _headline(report),
        matrix_table(report),
        _curves(report),
        _summary(report),
        _protocol(report),
        _configuration(report, config),
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
        f"<div class='tile'><b>{shown_value(value)}<small>{'' if value is None else '&thinsp;%'}</small></b>"
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
        f"<section class='card'><p class='lead'>{escape(text)}, {SPACES[report.label_space]}</p>"
        f"<div class='tiles'>{''.join(tiles)}</div>{f'<ul class=notes>{notes}</ul>' if notes else ''}</section>"
    )


def _curves(report: ContinualReport) -> str:
    means = accuracy_per_stage(report.matrix, sizes=report.has_data)
    pictures = [picture(plot_accuracy_curves(report.matrix, seen_average=means)[0], "Accuracy on each task over time")]
    if report.anytime is not None and report.anytime["curve"]["samples_seen"]:
        pictures.append(picture(plot_section(report.anytime)[0], "Accuracy over the training samples seen"))
    return f"<section class='card'><h3>Curves</h3><div class='pictures'>{''.join(pictures)}</div></section>"


def _summary(report: ContinualReport) -> str:
    definitions = {**DEFINITIONS, **FEW_SHOT_DEFINITIONS}
    if report.anytime is not None:
        definitions |= report.anytime.get("definitions", {})
    rows = {
        name: f"<tr><th scope='row'>{escape(readable(name))}</th><td class='num'>{shown_value(value)}</td>"
        f"<td class='small'>{escape(definition(name, definitions))}</td></tr>"
        for name, value in metrics_of(report).items()
    }
    head = "<tr><th scope='col'>metric</th><th scope='col' class='num'>value</th><th scope='col'>definition</th></tr>"
    return f"<section class='card'><h3>Metrics (%)</h3>{folded(rows, head)}</section>"


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
        f"<section class='card'><h3>Protocol: {escape(verdict(report))}</h3><div class='scroll'>"
        f"<table class='protocol'><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _configuration(report: ContinualReport, config: str) -> str:
    stream: dict[str, Any] = {
        "hash": report.stream_hash or "unknown",
        "tasks": len(report.matrix),
        "label space": SPACES[report.label_space],
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
        f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>{definition_list(values)}</details>"
        for title, values, is_open in blocks
        if values
    ]
    if config:
        shown.append(f"<details><summary>Configuration of the run</summary><pre>{escape(config)}</pre></details>")
    return f"<section class='card'><h3>Stream, methods, versions</h3>{''.join(shown)}</section>"


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, equal ones told apart by a number."""
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return unique
