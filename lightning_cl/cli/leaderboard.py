"""Rank the measured claims of the ledger, one table for each stream: a method is in it by having an entry. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl import __version__
from lightning_cl.cli.configs import UsageError, packaged, write_output
from lightning_cl.cli.ledger import Claim, Measurement, claim_names, read_claim

#: Parts of a stream that decide what is learned and how it is measured; batch size and epochs are the method's affair.
_DECISIVE = ("source", "scenario", "evaluate_on")
#: Arguments of a source that say how its images are prepared: the method's affair, too.
_PREPARATION = {"normalize", "augment", "mean", "std", "image_size", "resize"}
_BENCHMARK = re.compile(r"(?P<script>\S+/(?P<stem>\w+)\.(?:py|yaml))")
_DATA = re.compile(r"(\w+)\.npz")
_SCENARIO = re.compile(r"--scenario (\w+)")
_BENCH = re.compile(r"lightning-cl bench (\S+)")
_BUDGET = re.compile(r"--budget (\S+)")
_TUNED = re.compile(r"--param (\S+)|--tune-on (classes)|--tuning-fraction (\S+)")
_METHOD = re.compile(r"--methods? (\w+)")
#: What a run costs, each with the words for its axis.
AXES = {"minutes": "Minutes of one run", "mebibytes": "MiB of parameters, buffers and kept data"}


@dataclass(frozen=True)
class Row:
    """A measured claim."""

    claim: str  # its name in the ledger
    method: str
    measured: Measurement

    def value(self, metric: str) -> float:
        """The mean over the seeds; below everything where it was not measured."""
        return float(self.measured.numbers[metric]["mean"]) if metric in self.measured.numbers else float("-inf")

    @property
    def minutes(self) -> float | None:
        """Of one run, if they were kept."""
        return self.measured.minutes

    @property
    def mebibytes(self) -> float | None:
        """Of parameters, buffers and kept data, if they are known."""
        stored = self.measured.costs.get("stored_bytes")
        return None if stored is None else stored / 2**20

    @property
    def is_old(self) -> bool:
        """Measured with another version than this one."""
        return self.measured.version != __version__

    def cell(self, metric: str) -> str:
        """Mean ± standard deviation, empty where it was not measured."""
        if metric not in self.measured.numbers:
            return ""
        mean, deviation = (self.measured.numbers[metric][key] for key in ("mean", "std"))
        return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


@dataclass(frozen=True)
class Board:
    """Methods on one stream, the best first by the first metric."""

    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """For links and files: letters, digits and underscores."""
        return re.sub(r"\W+", "_", f"{self.title} {self.metrics[0]}").strip("_").lower()

    def points(self, cost: str = "minutes") -> tuple[dict[str, tuple[float, float]], list[str]]:
        """Method to cost (of ``AXES``) and first metric, where the cost is known; and those of the :meth:`front`."""
        known = [(row.method, getattr(row, cost), row.value(self.metrics[0])) for row in self.rows]
        named = [row.method for row in self.front(cost)]
        return {name: (paid, value) for name, paid, value in known if paid}, named

    def front(self, cost: str = "minutes") -> list[Row]:
        """The rows that no other beats in both, a cost and the first metric, by cost."""
        known = [row for row in self.rows if getattr(row, cost)]
        best: list[Row] = []
        for row in sorted(known, key=lambda row: (getattr(row, cost), -row.value(self.metrics[0]))):
            if not best or row.value(self.metrics[0]) > best[-1].value(self.metrics[0]):
                best.append(row)
        return best


def boards(claims: Iterable[Claim], least: int = 3) -> list[Board]:
    """The tables of all streams on which at least so many methods were measured, the largest first.

    Args:
        claims: Entries of the ledger. Left out are those that are not measured, ratios of time, and those that begin
            with a number of a benchmark's own (not ``space/metric``), which ranks nothing.
        least: Smallest number of rows of a table.
    """
    found: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        metric = next(iter(claim.numbers), "")
        if claim.measured is not None and claim.unit == "percent" and "/" in metric:
            found.setdefault((stream_of(claim), metric), []).append(claim)
    made = [_board(title, metric, part) for (title, metric), part in found.items() if len(part) >= least]
    return sorted(made, key=lambda board: (-len(board.rows), board.name))


def stream_of(claim: Claim) -> str:
    """What a claim was measured on, in words: the same words, the same stream."""
    if claim.recipe:
        data: dict[str, Any] = {}
        for name in claim.recipe:
            path = packaged(name)
            data |= (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("data", {}) if path else {}
        parts = [_in_words(data[key]) for key in _DECISIVE if key in data]
        return ", ".join([*parts, *claim.overrides])
    command = claim.command or ""
    if bench := _BENCH.search(command):
        budget = _BUDGET.search(command)
        title = bench[1] + (f" within {budget[1]}" if budget else "")
    else:
        found = (pattern.search(command) for pattern in (_BENCHMARK, _DATA, _SCENARIO))
        title = " on ".join(part[1] for part in found if part)
    tuned = ", ".join("".join(groups) for groups in _TUNED.findall(command))
    return f"{title}, tuned: {tuned}" if tuned else title


def _in_words(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    arguments = value.get("init_args") or {}
    given = ", ".join(f"{k}={_plain(v)}" for k, v in sorted(arguments.items()) if k not in _PREPARATION)
    return str(value.get("class_path")).rpartition(".")[2] + (f"({given})" if given else "")


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)


def _board(title: str, metric: str, claims: Sequence[Claim]) -> Board:
    metrics = tuple(dict.fromkeys([metric, *(key for claim in claims for key in claim.numbers)]))
    shared = _shared([claim.name for claim in claims])
    rows = [_row(claim, claim.name[shared:]) for claim in claims]
    return Board(title, metrics, tuple(sorted(rows, key=lambda row: (-row.value(metric), row.method))))


def _row(claim: Claim, rest: str) -> Row:
    named = _METHOD.search(claim.command or "")
    assert claim.measured is not None
    return Row(claim.name, named[1] if named else rest, claim.measured)


def _shared(names: Sequence[str]) -> int:
    """Letters that all names begin with, up to an underscore."""
    start = names[0]
    while not all(name.startswith(start) and name != start for name in names):
        start = start[: start.rstrip("_").rfind("_") + 1]
    return len(start[: start.rfind("_") + 1])


def markdown(boards: Sequence[Board], figures: Mapping[str, str]) -> str:
    """The tables with their figures, for a page of the documentation."""
    parts = []
    for board in boards:
        head = ["Method", *(f"`{metric}`" for metric in board.metrics), "Seeds", "Minutes", "MiB", "Claim"]
        lines = [head, ["---"] * len(head), *(_cells(row, board.metrics) for row in board.rows)]
        parts += [f"## {board.title}", ""]
        for cost in AXES:
            if (name := f"{board.name}_{cost}") in figures:
                parts += [f"![{board.metrics[0]} against {cost}]({figures[name]})", ""]
        parts += [*(f"| {' | '.join(line)} |" for line in lines), ""]
    return "\n".join(parts)


def _cells(row: Row, metrics: Sequence[str]) -> list[str]:
    minutes = "" if row.minutes is None else f"{row.minutes:g}"
    stored = "" if row.mebibytes is None else f"{row.mebibytes:.2f}"
    mark = " *" if row.is_old else ""
    seeds = str(len(row.measured.seeds))
    return [row.method + mark, *(row.cell(metric) for metric in metrics), seeds, minutes, stored, f"`{row.claim}`"]


def write_page(folder: Path, page: Path, least: int = 3) -> None:
    """Write the leaderboard of a ledger as a page that opens offline, and say where.

    Args:
        folder: Of the ledger.
        page: The file.
        least: Smallest number of methods of a stream.

    Raises:
        UsageError: If there is nothing to rank, or the page cannot be written.
    """
    made = boards([read_claim(name, folder) for name in claim_names(folder)], least)
    if not made:
        raise UsageError(f"{folder} holds no stream with {least} measured methods, so there is nothing to rank.")
    from lightning_cl.reports.leaderboard import leaderboard_page  # imports torch

    write_output(page, leaderboard_page(made, __version__, AXES), "--page")
    print(f"Leaderboard: {page}")
