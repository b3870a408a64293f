"""A report for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.reports.confusion import confused_lines
from lightning_cl.reports.protocol import CHECKS, Check, ProtocolCard
from lightning_cl.reports.rendering import render
from lightning_cl.reports.report import ContinualReport
from lightning_cl.reports.units import Unit

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def print_table(table: RenderableType) -> None:
    """Print a table to the terminal, above a progress bar that is there."""
    from rich import get_console

    get_console().print(table)  # the bar's: what others print in between, its next redraw would erase


def rich_table(report: ContinualReport, max_tasks: int = 12) -> Table:
    """The headline matrix, accuracies in percent, a row after every task, counted from 1, and the summary below it.

    Args:
        report: The report.
        max_tasks: With more tasks than this, the first and the last are shown and a gap is marked.

    Raises:
        ValueError: If ``max_tasks`` is less than 2.
    """
    from rich.text import Text

    if max_tasks < 2:
        raise ValueError(f"`max_tasks` is {max_tasks}; at least 2 are needed to show the first and the last.")
    means = accuracy_per_stage(report.matrix, sizes=report.has_data)
    matrix = _matrix_table(report.matrix, means, max_tasks, report.unit)
    return stacked(f"{report.unit.label}, {report.setting}", matrix, Text("\n".join(summary_lines(report))))


def stacked(title: str, *parts: RenderableType) -> Table:
    """A bold title above tables and text; a caption would be wrapped at the width of a table."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid()
    for part in (Text(title, style="bold"), *parts):
        grid.add_row(part)
    return grid


def _matrix_table(matrix: Tensor, means: Tensor, max_tasks: int, unit: Unit) -> Table:
    from rich import box
    from rich.table import Table

    average = means.tolist()
    rows = shown(len(matrix), max_tasks)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("after", justify="right", no_wrap=True)
    for task in rows:
        table.add_column("…" if task is None else str(task + 1), justify="right", no_wrap=True)
    table.add_column("mean", justify="right", style="bold", no_wrap=True)
    for stage in rows:
        if stage is None:
            table.add_row("…", *("" for _ in rows), "")
        else:
            cells = ["…" if task is None else unit.text(matrix[stage, task].item()) for task in rows]
            table.add_row(str(stage + 1), *cells, unit.text(average[stage]))
    return table


def summary_lines(report: ContinualReport) -> list[str]:
    """The main results of a report in words, then its notes."""
    filters = {"percent": lambda value: "-" if value is None else report.unit.text(value), "ranges": ranges}
    confused = [] if report.confusion is None else confused_lines(report.confusion, report.class_names)
    return render("summary.txt", filters, report=report, confused=confused).splitlines()


def protocol_table(card: ProtocolCard) -> Table:
    """A row for every check: its result, what was compared, and what came out; violations in words below."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"pass": "green", "fail": "bold red", "not checked": "dim"}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("what was compared")
    for check in card.checks:
        table.add_row(check.name, Text(check.result, styles[check.result]), Text(_compared(check)))
    violations = []
    for check in card.violations:
        after = f", after task {ranges(list(check.violated))}" if check.violated else ""
        wanted = CHECKS.get(check.name, "")
        violations.append(Text(f"Violated: {check.name} ({wanted}){after}: {check.message}", style="red"))
    return stacked("Protocol", table, *violations)


def _compared(check: Check) -> str:
    """What was compared and measured, and a remark; failures speak below the table."""
    measured = ", ".join(f"{value:g} {name.replace('_', ' ')}" for name, value in check.numbers.items())
    said = ": ".join(text for text in (check.compared, measured) if text)
    return "; ".join(text for text in (said, check.message if check.result != "fail" else "") if text)


def ranges(tasks: list[int]) -> str:
    """Ascending tasks, counted from 1, with neighbours joined: ``"1-4, 8"`` for 0 to 3 and 7."""
    runs: list[list[int]] = []
    for number in (task + 1 for task in tasks):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def shown(count: int, most: int) -> list[int | None]:
    """Tasks to show; None is a gap. The end gets the larger part: that is where a stream stands."""
    if count <= most:
        return list(range(count))
    first = (most - 1) // 2
    return [*range(first), None, *range(count - (most - 1 - first), count)]
