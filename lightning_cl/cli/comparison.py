"""Run ``lightning-cl compare``: several methods on one stream, over several seeds, in one table."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl import __version__
from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import is_complete
from lightning_cl.cli.arguments import class_name
from lightning_cl.cli.checkpoints import newest_first
from lightning_cl.cli.command import read as read_config
from lightning_cl.cli.command import run
from lightning_cl.cli.comparison_options import MethodChoice, Options
from lightning_cl.cli.configs import UsageError, require_writable
from lightning_cl.cli.equal_memory import Footprint, aligned_sizes, measure, remarks, too_large, with_memory
from lightning_cl.cli.processes import in_process
from lightning_cl.cli.protocol_check import newest_version
from lightning_cl.namespace import PYTORCH
from lightning_cl.reports.comparison import Comparison, Failure, Run
from lightning_cl.reports.comparison_tables import rich_comparison
from lightning_cl.reports.files import to_json
from lightning_cl.reports.report import FILE_NAME, ContinualReport, read

CONFIG, RESULT, OUTPUT = "run.yaml", "result.json", "output.txt"
#: Callbacks that every run of a comparison has: results, checkpoints to continue from, costs.
NEEDED = ("ContinualEvaluation", "ContinualCheckpoint", "RunCost")
#: Settings that change nothing but what is seen on the screen.
_SHOWN = ("enable_progress_bar", "enable_model_summary")

Config = dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """A method, by its name in tables, with a seed: what is run, and the folder that holds everything of it."""

    method: str
    seed: int
    folder: Path
    config: Config

    @classmethod
    def of(cls, method: str, seed: int, folder: Path, config: Config) -> PlannedRun:
        """With the seed, the needed callbacks, and a logger that keeps the run in ``folder/method/seed<k>``."""
        config = copy.deepcopy(config)
        config["seed_everything"] = seed
        config["data"]["seed"] = seed
        trainer = config["trainer"]
        settings = {"save_dir": str(folder / method), "name": f"seed{seed}"}
        trainer["logger"] = {"class_path": f"{PYTORCH}.loggers.CSVLogger", "init_args": settings}
        given = trainer.get("callbacks") or []
        callbacks = [*given] if isinstance(given, list) else [given]
        missing = [name for name in NEEDED if name not in map(class_name, callbacks)]
        trainer["callbacks"] = callbacks + [{"class_path": f"lightning_cl.callbacks.{name}"} for name in missing]
        return cls(method, seed, folder / method / f"seed{seed}", config)

    def describes(self, folder: Path) -> bool:
        """Check that ``folder`` holds this run: same configuration, same version of the package."""
        path = folder / CONFIG
        if not path.is_file():
            return False
        try:
            known = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            return False
        same_version = f"lightning_cl {__version__}\n" in path.read_text(encoding="utf-8")
        return same_version and isinstance(known, dict) and _essence(known) == _essence(self.config)

    def finished(self) -> Path | None:
        """Folder with the report, if this run has come to its end before."""
        mark = self.folder / RESULT
        if not self.describes(self.folder) or not mark.is_file():
            return None
        found = self.folder / str(json.loads(mark.read_text(encoding="utf-8"))["folder"])
        return found if (found / FILE_NAME).is_file() else None

    def begun(self) -> bool:
        """Check that there is a checkpoint of this run to go on from."""
        saved = newest_first(list(self.folder.glob("*/checkpoints")))
        return self.describes(self.folder) and any(is_complete(path) for path in saved)

    def prepare(self) -> list[str]:
        """Make the folder, keep aside what another configuration left in it, and give the words that run this."""
        go_on = self.begun()
        if self.folder.exists() and not self.describes(self.folder):
            _keep(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CONFIG
        head = f"# {self.method}, seed {self.seed}, lightning_cl {__version__}\n# lightning-cl fit --config {path}\n"
        path.write_text(head + yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        return ["fit", "--config", str(path), *(["--ckpt_path", "last"] if go_on else [])]

    def finish(self) -> Path:
        """Mark the newest report as the result."""
        found = newest_version(self.folder)
        if not (found / FILE_NAME).is_file():
            raise UsageError(f"the run left no report in {found}.")
        (self.folder / RESULT).write_text(to_json({"folder": found.name}), encoding="utf-8")
        return found


def _essence(config: Config) -> Config:
    trainer = {name: value for name, value in config["trainer"].items() if name not in _SHOWN}
    return {**config, "trainer": trainer}


def _keep(folder: Path) -> None:
    number = 1
    while (kept := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    os.replace(folder, kept)


def fit(words: list[str], debug: bool) -> int:
    """A run, in a process of its own; further processes of a distributed run read the same words."""
    sys.argv[1:] = words
    return run(words, debug)


def compare(options: Options, debug: bool) -> int:
    """Run a comparison and return the exit code: 0, 1 if a run failed, 130 after Ctrl-C."""
    require_writable(options.folder, "`--folder`")
    planned, notes = plan(options, debug)
    try:
        runs, failures = carry_out_all(options, planned, debug)
    except KeyboardInterrupt:
        return 130
    publish(options.stream, runs, failures, notes, options.folder)
    return 1 if failures else 0


def carry_out_all(options: Options, planned: Sequence[PlannedRun], debug: bool) -> tuple[list[Run], list[Failure]]:
    """The results of all runs, one after the other; ``KeyboardInterrupt``, once it is said, if one was interrupted."""
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
            raise
        if isinstance(result, Failure):
            failures.append(result)
            print(f"{head}: failed: {result.message}\n    all it said: {item.folder / OUTPUT}", file=sys.stderr)
        else:
            runs.append(result)
    if not runs:
        raise UsageError(f"none of the {len(failures)} runs has a result; {failures[0].method}: {failures[0].message}")
    return runs, failures


def plan(options: Options, debug: bool) -> tuple[list[PlannedRun], tuple[str, ...]]:
    """All runs, and what was done to make them comparable; every configuration is checked before the first begins."""
    configs = {}
    for method in options.methods:
        try:
            configs[method.name] = method_config(method, options.words, debug)
        except UsageError as error:
            raise UsageError(f"{method.name}: {error}") from error
    return plan_runs(options, configs, debug)


def plan_runs(options: Options, configs: dict[str, Config], debug: bool) -> tuple[list[PlannedRun], tuple[str, ...]]:
    """The runs of configurations that were read, by method, with memories aligned if that was asked."""
    notes: tuple[str, ...] = ()
    if options.align == "memory" or options.most_bytes is not None:
        configs, notes = _with_equal_memory(options, configs, debug)
    planned = [
        PlannedRun.of(name, seed, options.folder, config) for name, config in configs.items() for seed in options.seeds
    ]
    return planned, notes


def _with_equal_memory(
    options: Options, configs: dict[str, Config], debug: bool
) -> tuple[dict[str, Config], tuple[str, ...]]:
    """Configurations that store equally much, and what was done; without those that store more than they may."""
    trials = {name: PlannedRun.of(name, options.seeds[0], options.folder, c) for name, c in configs.items()}
    footprints = {name: footprint(trial, debug) for name, trial in trials.items()}
    most = options.most_bytes
    large = {} if most is None else too_large(footprints, most)
    if len(large) == len(configs):
        raise UsageError(f"no method fits into the budget; {next(iter(large.values()))}.")
    footprints = {name: found for name, found in footprints.items() if name not in large}
    sizes = aligned_sizes(footprints, most)
    fitting = {name: with_memory(configs[name], sizes[name]) if name in sizes else configs[name] for name in footprints}
    return fitting, (*remarks(footprints, sizes, most), *large.values())


def method_config(method: MethodChoice, words: Sequence[str], debug: bool) -> Config:
    """The whole configuration of a method on the stream; ``UsageError`` if it is wrong."""
    return read_config(["fit", *method_words(method, words)], debug)[1]


def method_words(method: MethodChoice, words: Sequence[str]) -> list[str]:
    """The words that `fit` takes for a method on the stream."""
    return [*(word for path in method.configs for word in ("--config", path)), *method.words, *words]


def footprint(planned: PlannedRun, debug: bool) -> Footprint:
    """Measure what a method will store, on its model in a process of its own."""
    with TemporaryDirectory() as folder:
        words = replace(planned, folder=Path(folder, "run")).prepare()
        found, problem = in_process(measure, words, debug, output=Path(folder, OUTPUT))
    if problem is not None:
        raise UsageError(f"{planned.method}: {problem}")
    assert isinstance(found, Footprint)
    return found


def carry_out(planned: PlannedRun, head: str, debug: bool) -> Run | Failure:
    """The result of a run: found, or made now in a process of its own; ``KeyboardInterrupt`` if it was interrupted."""
    folder, say = planned.finished(), "was finished before"
    if folder is None:
        doing = "continues" if planned.begun() else "runs"
        print(f"{head}: {doing}, see {planned.folder / OUTPUT}", flush=True)
        code, problem = in_process(fit, planned.prepare(), debug, output=planned.folder / OUTPUT)
        if code == 130 or problem == "interrupted":
            raise KeyboardInterrupt
        try:
            if problem is None and code:
                raise UsageError(f"it ended with exit code {code}")
            folder, say = planned.finish() if problem is None else None, "done"
        except UsageError as error:
            problem = str(error)
        if folder is None:
            return Failure(planned.method, str(planned.seed), problem or "it left no report")
    report = read(folder)
    print(f"{head}: {say}{_reached(report)}", flush=True)
    return Run(planned.method, str(planned.seed), report, str(folder))


def _reached(report: ContinualReport) -> str:
    if report.metric is not None:
        value = report.metrics.get(f"{report.metric}/average_value")
        return "" if value is None else f", average {report.unit.label} {report.unit.text(value)}"
    accuracy = report.metrics.get(f"{report.matrix_name}/average_accuracy")
    return "" if accuracy is None else f", average accuracy {100 * accuracy:.1f} %"


def publish(
    name: str, runs: Sequence[Run], failures: Sequence[Failure], notes: Sequence[str], folder: Path | None
) -> None:
    """Print the table, and write it into a folder."""
    from rich.console import Console

    try:
        comparison = Comparison(name, tuple(runs), tuple(failures), tuple(notes))
    except ValueError as error:
        raise UsageError(str(error)) from error
    Console().print(rich_comparison(comparison))
    if folder is not None:
        print(f"Tables and figure: {comparison.write(folder)}")


def tabulate(folders: Sequence[Path], output: Path | None) -> int:
    """Compare finished runs of any origin; a folder of several versions stands for its newest."""
    if output is not None:
        require_writable(output, "`--folder`")
    runs = [run for folder in folders for run in found_runs(folder)]
    publish(folders[0].resolve().name if len(folders) == 1 else "one stream", runs, (), (), output)
    return 0


def found_runs(folder: Path) -> list[Run]:
    """The runs in a folder: one, its newest version, or the finished ones of a comparison."""
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
