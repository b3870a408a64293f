"""A report for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.reports.protocol import CHECKS, Check, ProtocolCard
from lightning_cl.reports.report import ContinualReport

if TYPE_CHECKING:
    from rich.table import Table

SPACES = {"class_il": "class-incremental", "task_il": "task-incremental", "domain_il": "domain-incremental"}


def rich_table(report: ContinualReport, max_tasks: int = 12) -> Table:
    """The headline matrix in percent, a row for every stage, and the summary below it.

    Args:
        report: The report.
        max_tasks: With more tasks than this, the first and the last are shown and a gap is marked.

    Raises:
        ValueError: If ``max_tasks`` is less than 2.
    """
    from rich.table import Table
    from rich.text import Text

    if max_tasks < 2:
        raise ValueError(f"`max_tasks` is {max_tasks}; at least 2 are needed to show the first and the last.")
    space = SPACES["domain_il" if report.label_space == "domain_il" else report.matrix_name]
    table = Table.grid()  # a caption would be wrapped at the width of the matrix
    table.add_row(Text(f"Accuracy (%), {space}", style="bold"))
    table.add_row(_matrix_table(report.matrix, accuracy_per_stage(report.matrix, sizes=report.has_data), max_tasks))
    table.add_row(Text("\n".join(summary_lines(report))))
    return table


def _matrix_table(matrix: Tensor, means: Tensor, max_tasks: int) -> Table:
    from rich import box
    from rich.table import Table

    average = means.tolist()
    rows = shown(len(matrix), max_tasks)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("after", justify="right", no_wrap=True)
    for task in rows:
        table.add_column("…" if task is None else str(task), justify="right", no_wrap=True)
    table.add_column("mean", justify="right", style="bold", no_wrap=True)
    for stage in rows:
        if stage is None:
            table.add_row("…", *("" for _ in rows), "")
        else:
            cells = ["…" if task is None else percent(matrix[stage, task].item()) for task in rows]
            table.add_row(str(stage), *cells, percent(average[stage]))
    return table


def summary_lines(report: ContinualReport) -> list[str]:
    """The main results of a report in words, then its notes."""
    space = report.matrix_name

    def said(name: str, where: str = space) -> str:
        value = report.metrics.get(f"{where}/{name}")
        return "-" if value is None else percent(value)

    micro = report.metrics.get(f"{space}/average_accuracy_micro")
    pooled = "" if micro is None else f" ({percent(micro)} over samples)"
    lines = [
        f"Average accuracy {said('average_accuracy')}{pooled}, incremental {said('average_incremental_accuracy')}, "
        f"just learned {said('learning_accuracy')}",
        f"Forgetting {said('forgetting')} (best earlier minus final), "
        f"{said('forgetting_max_incl_last')} (best of all minus final)",
        f"Backward transfer {said('backward_transfer')}",
    ]
    if report.task_il is not None and space != "task_il":
        lines.append(f"Task-incremental: average accuracy {said('average_accuracy', 'task_il')}")
    if report.few_shot:
        lines.append(
            f"Few-shot: drop {said('performance_drop', 'few_shot')}, base {said('base_accuracy', 'few_shot')}, novel "
            f"{said('novel_accuracy', 'few_shot')}, harmonic mean {said('harmonic_mean', 'few_shot')}, average session "
            f"{said('average_session_accuracy', 'few_shot')}"
        )
    if report.anytime is not None:
        anytime = {name: "-" if v is None else percent(v) for name, v in report.anytime["metrics"].items()}
        lines.append(
            f"At any time: A_AUC {anytime['a_auc']}, after tasks A_Avg {anytime['a_avg']}, A_Last {anytime['a_last']}, "
            f"F_Last {anytime['f_last']}; worst case WC-ACC {anytime['wc_acc']}, min-ACC {anytime['min_acc']}"
        )
    if report.partial_stages:
        lines.append(f"Note: only part of the test data was used after task {_ranges(report.partial_stages)}")
    return lines + [f"Note: {note}" for note in report.notes]


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
    grid = Table.grid()
    grid.add_row(Text("Protocol", style="bold"))
    grid.add_row(table)
    for check in card.violations:
        after = f", after task {_ranges(list(check.violated))}" if check.violated else ""
        wanted = CHECKS.get(check.name, "")
        grid.add_row(Text(f"Violated: {check.name} ({wanted}){after}: {check.message}", style="red"))
    return grid


def _compared(check: Check) -> str:
    """What was compared and measured, and a remark; failures speak below the table."""
    measured = ", ".join(f"{value:g} {name.replace('_', ' ')}" for name, value in check.numbers.items())
    said = ": ".join(text for text in (check.compared, measured) if text)
    return "; ".join(text for text in (said, check.message if check.result != "fail" else "") if text)


def percent(value: float) -> str:
    """A fraction in percent with one decimal; nothing for NaN, no decimal for 100, no sign for zero."""
    if value != value:
        return ""
    text = f"{100 * value:.1f}"
    return {"100.0": "100", "-0.0": "0.0"}.get(text, text)


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers with neighbours joined: ``"0-3, 7"``."""
    runs: list[list[int]] = []
    for number in numbers:
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
