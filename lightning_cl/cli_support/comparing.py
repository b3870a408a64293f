"""``lightning-cl compare``: several methods on one stream, over several seeds, in one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli_support.aligning import Footprint, aligned_sizes, measure, remarks, with_memory
from lightning_cl.cli_support.checking import newest_version
from lightning_cl.cli_support.comparing_options import Options, read_options
from lightning_cl.cli_support.configs import UsageError, require_writable
from lightning_cl.cli_support.planned_runs import OUTPUT, RESULT, PlannedRun, fit
from lightning_cl.cli_support.processes import in_process
from lightning_cl.cli_support.reading import read as read_config
from lightning_cl.metrics.comparison import Comparison, Failure, Run
from lightning_cl.metrics.comparison_tables import rich_comparison
from lightning_cl.metrics.report import FILE_NAME, read


def compare(words: Sequence[str], debug: bool) -> int:
    """Run a comparison, or tabulate finished runs, and return the exit code: 0, 1 if a run failed, 130 after Ctrl-C.

    Args:
        words: The words after ``compare``.
        debug: Show tracebacks of configurations that cannot be used.

    Raises:
        UsageError: If there is nothing to compare, or something cannot be run at all.
    """
    options = read_options(words)
    if not isinstance(options, Options):
        return tabulate(*options)
    require_writable(options.folder, "`--folder`")
    planned, notes = plan(options, debug)
    print(f"{len(options.methods)} method(s), seeds {', '.join(map(str, options.seeds))}, in {options.folder}")
    for method in options.methods:
        print(f"  {method.name}: {method.origin}")
    runs, failures = [], []
    for number, item in enumerate(planned, start=1):
        head = f"[{number}/{len(planned)}] {item.method}, seed {item.seed}"
        try:
            result = carry_out(item, head, debug)
        except KeyboardInterrupt:
            print(f"\nlightning-cl: interrupted in {item.method}, seed {item.seed}. The same command continues.")
            return 130
        if isinstance(result, Failure):
            failures.append(result)
            print(f"{head}: failed: {result.message}\n    all it said: {item.folder / OUTPUT}", file=sys.stderr)
        else:
            runs.append(result)
    if not runs:
        raise UsageError(f"none of the {len(failures)} runs has a result; {failures[0].method}: {failures[0].message}")
    publish(options.stream, runs, failures, notes, options.folder)
    return 1 if failures else 0


def plan(options: Options, debug: bool) -> tuple[list[PlannedRun], tuple[str, ...]]:
    """All runs, and what was done to make them comparable; every configuration is checked before the first begins.

    Raises:
        UsageError: If one cannot be used.
    """
    configs = {}
    for method in options.methods:
        words = ["fit", *(word for path in method.configs for word in ("--config", path)), *method.words]
        try:
            _, configs[method.name] = read_config([*words, *options.words], method.configs, debug)
        except UsageError as error:
            raise UsageError(f"{method.name}: {error}") from error
    notes: tuple[str, ...] = ()
    if options.align == "memory":
        footprints = {}
        for name, config in configs.items():
            footprints[name] = footprint(PlannedRun.of(name, options.seeds[0], options.folder, config), debug)
        sizes = aligned_sizes(footprints)
        configs |= {name: with_memory(configs[name], size) for name, size in sizes.items()}
        notes = remarks(footprints, sizes)
    planned = [
        PlannedRun.of(name, seed, options.folder, config) for name, config in configs.items() for seed in options.seeds
    ]
    return planned, notes


def footprint(planned: PlannedRun, debug: bool) -> Footprint:
    """What a method will store, measured on its model in a process of its own.

    Raises:
        UsageError: If it cannot be built.
    """
    with TemporaryDirectory() as folder:
        words = replace(planned, folder=Path(folder, "run")).prepare()
        found, problem = in_process(measure, words, debug, output=Path(folder, OUTPUT))
    if problem is not None:
        raise UsageError(f"{planned.method}: {problem}")
    assert isinstance(found, Footprint)
    return found


def carry_out(planned: PlannedRun, head: str, debug: bool) -> Run | Failure:
    """The result of a run: found, or made now in a process of its own.

    Raises:
        KeyboardInterrupt: If it was interrupted.
    """
    folder = planned.finished()
    if folder is None:
        doing = "continues" if planned.begun() else "runs"
        print(f"{head}: {doing}, see {planned.folder / OUTPUT}", flush=True)
        code, problem = in_process(fit, planned.prepare(), debug, output=planned.folder / OUTPUT)
        if code == 130 or problem == "interrupted":
            raise KeyboardInterrupt
        if problem is None and code:
            problem = f"it ended with exit code {code}"
        try:
            folder = planned.finish() if problem is None else None
        except UsageError as error:
            problem = str(error)
        if folder is None:
            return Failure(planned.method, str(planned.seed), problem or "it left no report")
        say = "done"
    else:
        say = "was finished before"
    report = read(folder)
    accuracy = report.metrics.get(f"{report.matrix_name}/average_accuracy")
    print(f"{head}: {say}" + ("" if accuracy is None else f", average accuracy {100 * accuracy:.1f} %"), flush=True)
    return Run(planned.method, str(planned.seed), report, str(folder))


def publish(
    name: str, runs: Sequence[Run], failures: Sequence[Failure], notes: Sequence[str], folder: Path | None
) -> None:
    """Print the table, and write it into a folder.

    Raises:
        UsageError: If the runs cannot be compared.
    """
    from rich.console import Console

    try:
        comparison = Comparison(name, tuple(runs), tuple(failures), tuple(notes))
    except ValueError as error:
        raise UsageError(str(error)) from error
    Console().print(rich_comparison(comparison))
    if folder is not None:
        print(f"Tables and figure: {comparison.write(folder)}")


# ---------------------------------------------------------------------- finished runs


def tabulate(folders: Sequence[Path], output: Path | None) -> int:
    """Compare finished runs of any origin; a folder of several versions stands for its newest.

    Raises:
        UsageError: If a folder holds no report, or the runs are of different streams.
    """
    if output is not None:
        require_writable(output, "`--folder`")
    runs = [run for folder in folders for run in found_runs(folder)]
    publish(folders[0].resolve().name if len(folders) == 1 else "one stream", runs, (), (), output)
    return 0


def found_runs(folder: Path) -> list[Run]:
    """The runs in a folder: one, its newest version, or the finished ones of a comparison.

    Raises:
        UsageError: If there is none.
    """
    marks = sorted(folder.rglob(RESULT))
    marked = [newest_version(mark.parent) for mark in marks if "-" not in mark.parent.name]  # seed0-1 is of old
    paths = marked or [newest_version(folder)]
    for path in paths:
        if not (path / FILE_NAME).is_file():
            raise UsageError(f"{path} holds a run without a {FILE_NAME}; let it come to its end, or leave it out.")
    try:
        return [_named(path) for path in paths]
    except ValueError as error:
        raise UsageError(str(error)) from error


def _named(path: Path) -> Run:
    """A report with the method and the seed that its folder and its config tell."""
    report, resolved = read(path), path.resolve()
    named = resolved.parent if resolved.name.startswith("version_") else resolved
    method = named.parent.name if named.name.startswith("seed") and named.name[4:].isdecimal() else named.name
    config = path / "config.yaml"
    values = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
    seed = (values.get("data") or {}).get("seed")
    return Run(method, str(seed) if seed is not None else (report.stream_hash or "?")[:8], report, str(path))
