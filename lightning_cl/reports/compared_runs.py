"""Compare methods on one stream over several seeds: means and deviations of results and costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_cl.reports.report import ContinualReport


@dataclass(frozen=True)
class Column:
    """What is compared: its key in files, its head in tables, and how a value is shown.

    Attributes:
        key: Name in CSV files, where values are unscaled: fractions, minutes, samples, bytes, milliseconds.
        title: Head of the column in tables.
        scale: Factor from the value to what tables show.
        digits: Decimals in tables.
        cost: Belongs to the table of costs.
        says: What it is, for the note below a table.
    """

    key: str
    title: str
    scale: float = 100.0
    digits: int = 1
    cost: bool = False
    says: str = ""


COLUMNS = (
    Column("average_accuracy", "accuracy %", says="average accuracy over tasks after the last one"),
    Column("average_incremental_accuracy", "AIA %", says="mean of the average accuracies after every task"),
    Column("forgetting", "forgetting %", says="best earlier minus final accuracy, mean over old tasks"),
    Column("a_auc", "A_AUC %", says="mean accuracy of the evaluations inside the stream, exposed classes only"),
    Column("a_last", "A_Last %", says="accuracy over all samples of exposed classes after the last task"),
    Column(
        "f_last", "F_Last %", says="best class accuracy after an earlier task minus the final one, mean over classes"
    ),
    Column("average_session_accuracy", "session %", says="mean over sessions of accuracy over all test samples so far"),
    Column("base_accuracy", "base %", says="final accuracy on the base session's classes"),
    Column("novel_accuracy", "novel %", says="final accuracy on all other classes"),
    Column("harmonic_mean", "harmonic %", says="harmonic mean of base and novel"),
    Column("performance_drop", "drop %", says="accuracy after the base session minus that after the last"),
    Column("minutes", "min", 1.0, 1, True, "time of the fit, evaluations included"),
    Column("forward_samples", "fwd k", 1e-3, 1, True, "thousands of images through the network in training"),
    Column("backward_samples", "bwd k", 1e-3, 1, True, "thousands of them back-propagated"),
    Column("trainable_parameters", "train M", 1e-6, 3, True, "millions of trained parameters"),
    Column("total_parameters", "all M", 1e-6, 3, True, "millions of parameters"),
    Column("memory_bytes", "memory MiB", 2.0**-20, 2, True, "kept data, images as height x width x channels bytes"),
    Column("stored_bytes", "stored MiB", 2.0**-20, 2, True, "parameters, buffers and kept data"),
    Column("latency_single_ms", "ms alone", 1.0, 2, True, "milliseconds for an image alone"),
    Column("latency_batch_ms", "ms batch", 1.0, 2, True, "milliseconds for an image in an evaluation batch"),
)


#: What is compared of a metric in the accuracy's place: its name in reports, behind the metric's, and what it is.
_OF_METRIC = (
    ("average_value", "", "{}, mean over tasks after the last one"),
    ("average_incremental_value", " AIA", "mean of that after every task"),
    ("forgetting", " forgetting", "what old tasks lost since their best value, positive is worse"),
)


def metric_columns(reports: Iterable[ContinualReport]) -> list[Column]:
    """The columns of reports of a metric other than the accuracy: by its own name, with its direction."""
    units = dict.fromkeys(report.unit for report in reports if report.metric is not None)
    return [
        Column(
            f"{unit.metric}/{key}", f"{unit.metric}{title}", 1.0, 3, says=f"{says}; {unit.label}" if not title else says
        )
        for unit in units
        for key, title, says in _OF_METRIC
    ]


@dataclass(frozen=True)
class Run:
    """A finished run: the method's name, its seed (or another name of the repetition), its report and its folder."""

    method: str
    seed: str
    report: ContinualReport
    folder: str = ""


@dataclass(frozen=True)
class Failure:
    """A run that did not come to its end, and why."""

    method: str
    seed: str
    message: str


def values_of(report: ContinualReport) -> dict[str, float]:
    """The values of :data:`COLUMNS` and :func:`metric_columns` that a report knows, unscaled, by key."""
    anytime: Mapping[str, Any] = (report.anytime or {}).get("metrics", {})
    cost: Mapping[str, Any] = report.facts.get("RunCost", {})
    latency = sorted((int(size), value) for size, value in cost.get("latency_ms", {}).items())
    seconds = cost.get("seconds")
    found: dict[str, Any] = {
        "minutes": None if seconds is None else seconds / 60,
        "trainable_parameters": report.trainable_parameters,
        "total_parameters": report.total_parameters,
        "latency_single_ms": latency[0][1] if latency and latency[0][0] == 1 else None,
        "latency_batch_ms": latency[-1][1] if latency else None,
    }
    found |= {column.key: report.metrics.get(column.key) for column in metric_columns([report])}
    for column in COLUMNS:
        if column.key not in found:
            places = (f"{report.matrix_name}/{column.key}", f"few_shot/{column.key}")
            known = [report.metrics.get(place) for place in places]
            known += [anytime.get(column.key), cost.get(column.key)]
            found[column.key] = next((value for value in known if value is not None), None)
    return {key: float(value) for key, value in found.items() if value is not None}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample (divided by n - 1); None for a single value.

    Raises:
        statistics.StatisticsError: If there is no value.
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class ComparedRuns:
    """Runs of methods on one stream, with the same seeds.

    Attributes:
        name: Of the stream, for titles.
        runs: In the order of the tables.
        failures: Runs without a result; they are named below the tables and count in no mean.
        remarks: What was done to make the runs comparable, for example that memories were aligned.

    Raises:
        ValueError: If there is no run, a run is there twice, or two methods were run on different streams.
    """

    name: str
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...] = ()
    remarks: tuple[str, ...] = ()
    _values: dict[tuple[str, str], dict[str, float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("there is no finished run to compare.")
        pairs = [(run.method, run.seed) for run in self.runs]
        twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
        if twice is not None:
            raise ValueError(f"method `{twice[0]}` has two runs with the seed {twice[1]}; leave one out.")
        refuse_other_streams(self.runs)
        object.__setattr__(self, "_values", {(r.method, r.seed): values_of(r.report) for r in self.runs})

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have a result."""
        return list(dict.fromkeys(run.method for run in self.runs))

    def values(self, method: str, key: str) -> list[float]:
        """What the runs of a method reached, in the order of the runs."""
        every = (self._values[run.method, run.seed] for run in self.runs if run.method == method)
        return [values[key] for values in every if key in values]

    def columns(self, cost: bool | None = None) -> list[Column]:
        """The columns for which some run has a value; of costs, of results, or both."""
        known = [*metric_columns(run.report for run in self.runs), *COLUMNS]
        found = [c for c in known if any(c.key in values for values in self._values.values())]
        return [c for c in found if cost is None or c.cost == cost]

    def headline(self) -> Column:
        """What the figure shows first: A_AUC, the session average, or a metric where all have it; else the accuracy."""
        own = metric_columns(run.report for run in self.runs)[:1]
        by_key = {column.key: column for column in (*own, *COLUMNS)}
        for key in ("a_auc", "average_session_accuracy", *(column.key for column in own)):
            if all(key in values for values in self._values.values()):
                return by_key[key]
        return by_key["average_accuracy"]

    def cell(self, method: str, column: Column) -> str:
        """``mean ± deviation`` as tables show it, of costs the mean alone; a dash for what was not measured."""
        values = [value * column.scale for value in self.values(method, column.key)]
        if not values:
            return "-"
        mean, deviation = mean_and_deviation(values)
        alone = deviation is None or column.cost
        return f"{mean:.{column.digits}f}" + ("" if alone else f" ± {deviation:.{column.digits}f}")

    def notes(self) -> list[str]:
        """What a reader must know: how many runs, what failed, and what reports of single methods say."""
        seeds = list(dict.fromkeys(run.seed for run in self.runs))
        lines = [f"mean ± standard deviation (n - 1) over {len(seeds)} seeds: {', '.join(seeds)}"]
        if len(seeds) == 1:
            lines = [f"one run each (seed {seeds[0]}): small differences mean nothing"]
        lines += self.remarks
        for method in self.methods:
            own = [run for run in self.runs if run.method == method]
            missing = [seed for seed in seeds if seed not in {run.seed for run in own}]
            if missing:
                lines.append(f"{method}: no result for seed {', '.join(missing)}, so its mean is over {len(own)}")
        lines += [f"{f.method}, seed {f.seed}, failed: {f.message}" for f in self.failures]
        return lines + self._particular_notes()

    def _particular_notes(self) -> list[str]:
        first = _first_runs(self.runs)
        shared = [note for note in first[0].report.notes if all(note in run.report.notes for run in first)]
        lines = list(shared)
        for run in first:
            lines += [f"{run.method}: {note}" for note in run.report.notes if note not in shared]
        partial = list(dict.fromkeys(run.method for run in self.runs if run.report.partial_stages))
        if partial:
            lines.append(f"{', '.join(partial)}: only part of the test data was used after some tasks")
        devices = {str(run.report.facts.get("RunCost", {}).get("device")) for run in self.runs} - {"None"}
        return lines + ([f"times measured on different devices: {', '.join(sorted(devices))}"] * (len(devices) > 1))


def refuse_other_streams(runs: Sequence[Run]) -> None:
    """Methods are compared on the same streams only.

    Raises:
        ValueError: If two runs with the same seed have different stream hashes, or two methods have no stream in
            common; the message shows both hashes.
    """
    by_seed: dict[str, Run] = {}
    for run in runs:
        other = by_seed.setdefault(run.seed, run)
        if other.report.stream_hash != run.report.stream_hash:
            raise ValueError(_different(other, run))
    first, *others = _first_runs(runs)
    known = {run.report.stream_hash for run in runs if run.method == first.method}
    for other in others:
        if not known & {run.report.stream_hash for run in runs if run.method == other.method}:
            raise ValueError(_different(first, other))


def _different(one: Run, other: Run) -> str:
    hashes = [(run.report.stream_hash or "unknown")[:16] for run in (one, other)]
    return (
        f"`{one.method}` (seed {one.seed}) ran on the stream {hashes[0]}, `{other.method}` (seed {other.seed}) on "
        f"{hashes[1]}; only runs on the same stream can be compared: give them the same data, scenario and seeds."
    )


def _first_runs(runs: Sequence[Run]) -> list[Run]:
    by_method: dict[str, Run] = {}
    for run in runs:
        by_method.setdefault(run.method, run)
    return list(by_method.values())
