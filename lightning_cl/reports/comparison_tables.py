"""A comparison as text: CSV for programs, Markdown for papers, tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_cl.reports.compared_runs import ComparedRuns, mean_and_deviation, values_of
from lightning_cl.reports.files import to_csv
from lightning_cl.reports.rendering import render
from lightning_cl.reports.tables import stacked

if TYPE_CHECKING:
    from rich.table import Table


_WIDEST = 6  # columns of results with deviations, beside a name, in a terminal of 80 characters


def runs_csv(comparison: ComparedRuns) -> str:
    """A line for each run with every value unscaled; an empty cell was not measured."""
    columns = comparison.columns()
    rows: list[list[Any]] = [["method", "seed", *(c.key for c in columns), "stream_hash", "folder"]]
    for run in comparison.runs:
        values = values_of(run.report)
        cells = [values.get(c.key) for c in columns]
        rows.append([run.method, run.seed, *cells, run.report.stream_hash or "", run.folder])
    return to_csv(rows, "\n")


def summary_csv(comparison: ComparedRuns) -> str:
    """A line for each method: runs, then mean and deviation of every value, unscaled."""
    columns = comparison.columns()
    heads = [name for c in columns for name in (c.key, f"{c.key}_std")]
    rows: list[list[Any]] = [["method", "runs", *heads]]
    for method in comparison.methods:
        cells: list[Any] = []
        for column in columns:
            values = comparison.values(method, column.key)
            cells += mean_and_deviation(values) if values else (None, None)
        rows.append([method, sum(run.method == method for run in comparison.runs), *cells])
    return to_csv(rows, "\n")


def markdown(comparison: ComparedRuns) -> str:
    """A table of results and one of costs, with what their columns are and the notes below."""
    return render("comparison.md", {}, comparison=comparison)


def rich_comparison(comparison: ComparedRuns) -> Table:
    """The tables of :func:`markdown` for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    tables = []
    results, costs = comparison.columns(False), comparison.columns(True)
    blocks = [results[start : start + _WIDEST] for start in range(0, len(results), _WIDEST)]
    for columns in [*blocks, costs] if costs else blocks:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("method", no_wrap=True, style="bold")
        for column in columns:
            table.add_column(column.title.replace(" ", "\n"), justify="right", no_wrap=True)
        for method in comparison.methods:
            table.add_row(method, *(comparison.cell(method, c).replace(" ± ", "±") for c in columns))
        tables.append(table)
    notes = Text("\n".join(f"Note: {note}" for note in comparison.notes()))
    return stacked(f"Methods on {comparison.name}", *tables, notes)
