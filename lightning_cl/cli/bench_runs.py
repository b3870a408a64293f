"""Run the methods of ``lightning-cl bench``, and enter what came out into a ledger. Imports torch."""

from __future__ import annotations

import argparse
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_cl import __version__
from lightning_cl.cli import comparison, ledger
from lightning_cl.cli.bench import Budget, Tuning
from lightning_cl.cli.comparison_options import Options
from lightning_cl.cli.configs import UsageError, require_writable
from lightning_cl.cli.leaderboard import write_page
from lightning_cl.cli.ledger import Claim, Measurement, Number
from lightning_cl.cli.reproduction import hardware
from lightning_cl.cli.tuned_methods import tuned
from lightning_cl.reports.compared_runs import COLUMNS, Run, values_of

#: Where a report keeps what is not of its matrix.
_SPACES = {"a_auc": "anytime", "a_last": "anytime", "f_last": "anytime"}
_FEW_SHOT = ("average_session_accuracy", "base_accuracy", "novel_accuracy", "harmonic_mean", "performance_drop")
_TOLERANCE = 4.0  # of another run of the same command, in percent


def run(
    suite: str,
    asked: Options,
    options: argparse.Namespace,
    budget: Budget | None,
    tuning: Tuning | None,
    debug: bool,
) -> int:
    """Run all methods of a suite that can run on it, enter those within the budget, and write the page."""
    configs, unable = sort_out(asked, debug)
    require_writable(asked.folder, "`--folder`")
    chosen: dict[str, str] = {}
    failed: list[str] = []  # to be tuned
    try:
        if tuning is not None:
            chosen, failed = tuned(asked, configs, tuning, debug)
        if not configs:
            raise UsageError(
                f"none of the methods can {'be tuned' if failed else 'run'} on {suite}; {[*failed, *unable][0]}"
            )
        able = replace(asked, methods=tuple(method for method in asked.methods if method.name in configs))
        planned, notes = comparison.plan_runs(able, configs, debug)
        runs, failures = comparison.carry_out_all(able, planned, debug)
    except KeyboardInterrupt:
        return 130
    words = (*asked.words, *(() if budget is None else ("--budget", options.budget)))
    words += () if tuning is None else tuning.words()
    by_method = {done.method: [other for other in runs if other.method == done.method] for done in runs}
    claims = [entry(suite, method, found, words, chosen.get(method)) for method, found in by_method.items()]
    over = over_budget(claims, budget)
    comparison.publish(suite, runs, failures, (*notes, *unable, *failed, *over.values()), able.folder)
    folder = options.ledger or able.folder / "ledger"
    folder.mkdir(parents=True, exist_ok=True)
    for claim in ranked(claims, over):
        (folder / f"{claim.name}.yaml").write_text(claim.to_yaml(), encoding="utf-8")
    write_page(folder, options.page or able.folder / "leaderboard.html", least=1)
    return 1 if failures or failed else 0


def over_budget(claims: Sequence[Claim], budget: Budget | None) -> dict[str, str]:
    """Names of claims that cost more than the budget, each with a sentence about it."""
    over: dict[str, str] = {}
    if budget is None:
        return over
    for claim in claims:
        assert claim.measured is not None
        cost = budget.over(dict(claim.measured.costs))
        if cost is not None:
            over[claim.name] = f"{claim.claim} is not ranked: it took {cost:.0f} of {budget.most} {budget.of}"
    return over


def ranked(claims: Sequence[Claim], over: Mapping[str, str]) -> list[Claim]:
    """The claims within the budget.

    Raises:
        UsageError: If all cost more.
    """
    if claims and len(over) == len(claims):
        raise UsageError(f"no method stays within the budget; {next(iter(over.values()))}")
    return [claim for claim in claims if claim.name not in over]


def sort_out(options: Options, debug: bool) -> tuple[dict[str, Any], list[str]]:
    """The configurations of the methods that are right on this stream, and for the others why they are not."""
    configs, unable = {}, []
    for method in options.methods:
        try:
            configs[method.name] = comparison.method_config(method, options.words, debug)
        except UsageError as error:
            unable.append(f"{method.name} cannot run here: {error}")
    return configs, unable


def entry(suite: str, method: str, runs: Sequence[Run], words: Sequence[str], note: str | None = None) -> Claim:
    """The entry of the ledger for the runs of a method over its seeds."""
    found = [values_of(run.report) for run in runs]
    numbers = {}
    for column in (column for column in COLUMNS if not column.cost):
        values = [value for value in (one.get(column.key) for one in found) if value is not None]
        if len(values) == len(runs):
            numbers[_metric(column.key, runs[0])] = ledger.summary([100.0 * value for value in values])
    minutes = [one["minutes"] for one in found if one.get("minutes") is not None]
    seeds = tuple(int(run.seed) for run in runs)
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
        measured=Measurement(seeds, numbers, __version__, hardware(), mean, None, ledger.mean_costs(found)),
        note=note,
    )


def _metric(key: str, run: Run) -> str:
    space = "few_shot" if key in _FEW_SHOT else _SPACES.get(key, run.report.matrix_name)
    return f"{space}/{key}"
