"""Choose values for every method of ``lightning-cl bench`` alike, on a tuning stream. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cl.cli.bench import Tuning
from lightning_cl.cli.comparison import fit, method_words
from lightning_cl.cli.comparison_options import MethodChoice, Options
from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.processes import in_process
from lightning_cl.cli.sweep import TwoPhaseSweep
from lightning_cl.cli.sweep_phases import FIRST_TUNING_SEED, Phases, check_config
from lightning_cl.cli.sweep_space import Composition, Range, grid, parse
from lightning_cl.cli.sweep_trials import require_optuna

_METRIC = "class_il/average_accuracy"


class Copies:
    """Every trial in a copy of this process, where all is imported already; one at a time."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug

    def __call__(self, config: Path, log: Path) -> int:
        """Run ``lightning-cl fit``; gives the exit code."""
        code, problem = in_process(fit, ["fit", "--config", str(config)], self.debug, output=log)
        if code == 130 or problem == "interrupted":
            raise KeyboardInterrupt
        return 1 if problem is not None else int(code)

    def stop(self) -> None:
        """End what is running: ``in_process`` has done so."""


def tuned(
    asked: Options, configs: dict[str, dict[str, Any]], tuning: Tuning, debug: bool
) -> tuple[dict[str, str], list[str]]:
    """Put the best values of each method into its configuration, and take out the methods that have none.

    Returns:
        What was chosen, in words by method, and for methods without a result why.

    Raises:
        UsageError: If Optuna is not installed, or the phases cannot be kept apart for any method.
    """
    require_optuna()
    phases = Phases(tuning.on, (FIRST_TUNING_SEED,), asked.seeds, tuning_fraction=tuning.fraction)
    chosen, failed = {}, []
    for method in asked.methods:
        if method.name in configs:
            print(f"tuning {method.name}", flush=True)
            try:
                configs[method.name], chosen[method.name] = tune(method, asked, tuning.params, phases, debug)
            except KeyboardInterrupt:
                print(f"\nlightning-cl: interrupted while {method.name} was tuned. The same command continues.")
                raise
            except UsageError as error:
                del configs[method.name]
                failed.append(f"{method.name} cannot be tuned here: {error}")
                print(failed[-1], flush=True)  # not only when all others have been run
    return chosen, failed


def tune(
    method: MethodChoice, asked: Options, params: tuple[str, ...], phases: Phases, debug: bool
) -> tuple[dict[str, Any], str]:
    """The configuration of a method with the best of the values, and a sentence about how they were found.

    Raises:
        UsageError: If a value is wrong, the streams are not apart, or no trial has a result.
    """
    composition = Composition(method_words(method, asked.words), debug)
    parameters = parse(params, composition.arguments, composition.typed)
    check_config(composition.config, parameters)
    ranges = [parameter.path for parameter in parameters if isinstance(parameter.domain, Range)]
    if ranges:
        raise UsageError(f"all methods try the same values, but {', '.join(ranges)} is a range; list values: `a,b,c`.")
    folder = asked.folder / method.name / "tuning"
    sweep = TwoPhaseSweep(folder, composition, parameters, phases, _METRIC, "grid", 0, Copies(debug))
    best, trials = sweep.tune(len(grid(parameters)))
    if best is None:
        raise UsageError(f"all {len(trials)} trials failed: {trials[0].error}; remove {folder} to try them again.")
    facts = sweep.facts(best, trials)
    values = ", ".join(f"{path} {value}" for path, value in best.values.items())
    failures = f", {facts['failed_trials']} of which failed" if facts["failed_trials"] else ""
    found = f"{values}: the best of {len(trials)} trials{failures}, on {facts['tuned_on']}"
    return sweep.evaluation(best, asked.seeds[0], facts), found
