"""Run every method on one stream, and rank what came out: ``lightning-cl bench``."""

from __future__ import annotations

import argparse
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_cl import __version__
from lightning_cl.cli import ledger
from lightning_cl.cli.commands import SUITES
from lightning_cl.cli.comparison_options import Options, read_options, recipes_of
from lightning_cl.cli.configs import UsageError, find_config, part_names, require_writable, write_output
from lightning_cl.cli.leaderboard import boards
from lightning_cl.cli.ledger import Claim, Measurement, Number
from lightning_cl.reports.compared_runs import COLUMNS, values_of
from lightning_cl.reports.comparison import Run

#: Where a report keeps what is not of its matrix.
_SPACES = {"a_auc": "anytime", "a_last": "anytime", "f_last": "anytime"}
_FEW_SHOT = ("average_session_accuracy", "base_accuracy", "novel_accuracy", "harmonic_mean", "performance_drop")
_TOLERANCE = 4.0  # of another run of the same command, in percent


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Run a suite, or only write the page: 0, 1 if a run failed, 130 after Ctrl-C."""
    if options.target:
        return run(options, rest, debug)
    if options.page is None:
        raise UsageError("`bench` needs a suite, such as `digits`, or `--page FILE`; see `lightning-cl bench --help`.")
    write_page(options.ledger or ledger.LEDGER, options.page)
    return 0


def run(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Run all methods of a suite that can run on it, enter them, and write the page."""
    from lightning_cl.cli import comparison  # imports torch

    suite = SUITES.get(options.target, options.target)
    names = options.methods or ",".join(method_names(suite))
    given = argparse.Namespace(
        methods=names, config=[suite], seeds=options.seeds, align=None, folder=options.folder or "runs/bench", target=""
    )
    asked = read_options(given, rest)
    assert isinstance(asked, Options)
    configs, unable = sort_out(asked, debug)
    require_writable(asked.folder, "`--folder`")
    if not configs:
        raise UsageError(f"none of the methods can run on {suite}; {unable[0]}")
    able = replace(asked, methods=tuple(method for method in asked.methods if method.name in configs))
    planned, notes = comparison.plan_runs(able, configs, debug)
    try:
        runs, failures = comparison.carry_out_all(able, planned, debug)
    except KeyboardInterrupt:
        return 130
    comparison.publish(suite, runs, failures, (*notes, *unable), able.folder)
    folder = options.ledger or able.folder / "ledger"
    folder.mkdir(parents=True, exist_ok=True)
    for method in dict.fromkeys(done.method for done in runs):
        claim = entry(suite, method, [done for done in runs if done.method == method], asked.words)
        (folder / f"{claim.name}.yaml").write_text(claim.to_yaml(), encoding="utf-8")
    write_page(folder, options.page or able.folder / "leaderboard.html", least=1)
    return 1 if failures else 0


def method_names(stream: str) -> list[str]:
    """Every method that may be put on a stream: its complete recipes, and all packaged methods."""
    find_config(stream)
    return sorted({*recipes_of(stream), *part_names("methods")})


def sort_out(options: Options, debug: bool) -> tuple[dict[str, Any], list[str]]:
    """The configurations of the methods that are right on this stream, and for the others why they are not."""
    from lightning_cl.cli.comparison import method_config

    configs, unable = {}, []
    for method in options.methods:
        try:
            configs[method.name] = method_config(method, options.words, debug)
        except UsageError as error:
            unable.append(f"{method.name} cannot run here: {error}")
    return configs, unable


def entry(suite: str, method: str, runs: Sequence[Run], words: Sequence[str]) -> Claim:
    """The entry of the ledger for the runs of a method over its seeds."""
    found = [values_of(run.report) for run in runs]
    numbers = {}
    for column in (column for column in COLUMNS if not column.cost):
        values = [value for value in (one.get(column.key) for one in found) if value is not None]
        if len(values) == len(runs):
            numbers[_metric(column.key, runs[0])] = ledger.summary([100.0 * value for value in values])
    minutes = [one["minutes"] for one in found if one.get("minutes") is not None]
    seeds = tuple(int(run.seed) for run in runs)
    from lightning_cl.cli.reproduction import hardware

    mean = round(statistics.fmean(minutes), 2) if minutes else None
    command = ["lightning-cl", "bench", suite, "--methods", method, "--seeds", ",".join(map(str, seeds)) + ","]
    return Claim(
        name=f"bench_{Path(suite).stem}_{method}",
        claim=f"{method} on {suite}",
        recipe=(),
        overrides=(),
        command=shlex.join([*command, *words]),
        source=None,
        seeds=seeds,
        unit="percent",
        numbers={metric: Number(None, None, _TOLERANCE) for metric in numbers},
        measured=Measurement(seeds, numbers, __version__, hardware(), mean, None),
    )


def _metric(key: str, run: Run) -> str:
    space = "few_shot" if key in _FEW_SHOT else _SPACES.get(key, run.report.matrix_name)
    return f"{space}/{key}"


def write_page(folder: Path, page: Path, least: int = 3) -> None:
    """Write the leaderboard of a ledger, and say where."""
    from lightning_cl.reports.leaderboard import leaderboard_page

    made = boards([ledger.read_claim(name, folder) for name in ledger.claim_names(folder)], least)
    if not made:
        raise UsageError(f"{folder} holds no stream with {least} measured methods, so there is nothing to rank.")
    write_output(page, leaderboard_page(made, __version__), "--page")
    print(f"Leaderboard: {page}")
