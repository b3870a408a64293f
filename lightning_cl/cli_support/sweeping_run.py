"""Both phases of a sweep on this machine, in one folder: trials on the tuning stream, then the best values' runs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_cl.cli_support.configs import UsageError
from lightning_cl.cli_support.processes import Runner, interruptible
from lightning_cl.cli_support.sweeping_config import Composition, write
from lightning_cl.cli_support.sweeping_local import LOG, LocalSweep, Trial, best, last_error, written
from lightning_cl.cli_support.sweeping_phases import (
    METRICS,
    Phases,
    StreamFacts,
    applied,
    check_apart,
    evaluation_settings,
    facts_of,
    logged_to,
    tuning_settings,
    with_protocol,
    without_checkpoints,
)
from lightning_cl.cli_support.sweeping_space import Parameter, key_of
from lightning_cl.metrics.comparison import mean_and_deviation
from lightning_cl.metrics.report import FILE_NAME, read

DEFINITION, RESULTS, BEST, FINAL = "sweep.json", "results.csv", "best.yaml", "final.json"


class TwoPhaseSweep:
    """A sweep in a folder: ``trials/``, ``results.csv``, ``best.yaml``, ``final/`` and ``final.json``.

    Args:
        folder: A sweep that is there goes on.
        composition: What is run.
        parameters: What is varied.
        phases: On what it is tuned and evaluated.
        metric: One of :data:`~lightning_cl.cli_support.sweeping_phases.METRICS`.
        method: ``"grid"``, ``"random"`` or ``"bayes"``.
        seed: Of the search.

    Raises:
        UsageError: If the folder holds another sweep, or the streams of the phases are not apart.
        ProtocolError: If the tuning stream is an evaluation stream, or measured on the test split.
    """

    def __init__(
        self,
        folder: Path,
        composition: Composition,
        parameters: Sequence[Parameter],
        phases: Phases,
        metric: str,
        method: str,
        seed: int,
    ) -> None:
        self.folder, self.composition, self.parameters, self.phases = folder, composition, parameters, phases
        self.metric, self.method, self.seed, self.goal = metric, method, seed, METRICS[metric]
        self._stream_parameters = any(p.path.startswith("data.") for p in parameters)
        self.tuning_streams, self.evaluation_streams = self.checked_streams({})
        self._define()

    # ------------------------------------------------------------------ what it is

    def checked_streams(self, values: dict[str, Any]) -> tuple[dict[int, StreamFacts], dict[int, StreamFacts]]:
        """Streams of both phases by seed, for some values of the parameters; refused if they are not apart."""
        config, seeds = self.with_values(values), self.phases.final_seeds or (0,)
        stream = self.composition.stream
        tuning = {
            seed: facts_of(stream(applied(config, tuning_settings(config, self.phases, seed))))
            for seed in self.phases.tuning_seeds
        }
        evaluation = {
            seed: facts_of(stream(applied(config, evaluation_settings(config, self.phases, seed)))) for seed in seeds
        }
        for own in tuning.values():
            for other in evaluation.values():
                check_apart(own, other, self.phases.on)
        return tuning, evaluation

    def with_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """The configuration with values of the parameters."""
        keys = {parameter.path: parameter.argument.key for parameter in self.parameters}
        return applied(self.composition.config, {keys[path]: value for path, value in values.items()})

    def _define(self) -> None:
        """Write down what the sweep is, or check that the one in the folder is the same."""
        config = hashlib.sha256(key_of(self.composition.config).encode()).hexdigest()
        tuning = {name: value for name, value in asdict(self.phases).items() if name != "final_seeds"}
        definition: dict[str, Any] = {
            "version": 1,
            "configuration": config,
            "parameters": {parameter.path: asdict(parameter.domain) for parameter in self.parameters},
            "metric": self.metric,
            "method": self.method,
            "seed": self.seed,
            "tuning": tuning,
            "tuning_streams": {str(seed): facts.fingerprint for seed, facts in self.tuning_streams.items()},
        }
        definition = json.loads(json.dumps(definition))
        path = self.folder / DEFINITION
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            written(path, json.dumps(definition, indent=2) + "\n")
            return
        known = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in definition if known.get(name) != definition[name]]
        if other:
            raise UsageError(
                f"{self.folder} holds another sweep, with other {', '.join(other)}; give the same arguments to go on "
                "with it, or another `--folder`."
            )

    # ------------------------------------------------------------------ running

    def run(self, count: int, jobs: int, runner: Runner, evaluate_again: bool = False) -> int:
        """Both phases; gives the exit code."""
        self._runner = runner
        local = LocalSweep(self.folder, self.parameters, self.goal, self._try, self.seed, self.method)
        tuned, evaluated = (next(iter(s.values())) for s in (self.tuning_streams, self.evaluation_streams))
        print(f"Tuning on {self.phases.describe()}: {tuned}; evaluation: {evaluated}. Folder: {self.folder}")
        try:
            with interruptible():
                local.run(count, jobs, self._say, runner.stop)
                trials = local.trials()
                chosen = self._publish(trials)
                if chosen is not None:
                    return self._evaluate(chosen, trials, evaluate_again)
        except KeyboardInterrupt:
            runner.stop()
            self._publish(local.trials())
            print(
                f"\nlightning-cl: interrupted after {len(local.trials())} trials, which are kept in {self.folder}; the "
                "same command goes on.",
                file=sys.stderr,
            )
            return 130
        print(f"lightning-cl: all {len(trials)} trials failed; logs: {self.folder / 'trials'}.", file=sys.stderr)
        return 1

    def _try(self, trial: Trial) -> list[float]:
        """Results of one configuration, a tuning seed each."""
        streams = self.checked_streams(trial.values)[1] if self._stream_parameters else self.evaluation_streams
        reserved = sorted({facts.fingerprint for facts in streams.values()})
        config, name = self.with_values(trial.values), f"{trial.number:04d}"
        results = []
        for seed in self.phases.tuning_seeds:
            run = applied(config, tuning_settings(config, self.phases, seed))
            without_checkpoints(run)
            with_protocol(run, "tuning", reserved, {"trial": trial.number, "values": trial.values})
            results.append(self._measured(run, self.folder / "trials" / name, f"seed_{seed}"))
        return results

    def _measured(self, config: dict[str, Any], folder: Path, version: str) -> float:
        logged_to(config, str(folder.parent), folder.name, version)
        path = write(config, folder / f"{version}.yaml")
        code = self._runner(path, folder / f"{version}.{LOG}")
        if code:
            raise RuntimeError(f"exit code {code}: {last_error(folder / f'{version}.{LOG}')}")
        value = read(folder / version).metrics.get(self.metric)
        if value is None:
            raise RuntimeError(f"the report has no {self.metric}: a task was not evaluated, or there is only one")
        return value

    # ------------------------------------------------------------------ the first phase's results

    def _say(self, trial: Trial) -> None:
        values = ", ".join(f"{path} {value}" for path, value in trial.values.items())
        outcome = f"failed: {trial.error}" if trial.error else f"{self.metric} {trial.mean:.4f}"
        print(f"trial {trial.number}: {values}: {outcome}", flush=True)

    def _publish(self, trials: Sequence[Trial]) -> Trial | None:
        """Table, CSV and the best configuration, which is given back."""
        chosen = best(trials, self.goal)
        written(self.folder / RESULTS, self._csv(trials))
        if chosen is not None:
            config = self.with_values(chosen.values)
            seed = next(iter(self.phases.final_seeds), 0)
            write(applied(config, evaluation_settings(config, self.phases, seed)), self.folder / BEST)
        self._print_table(trials, chosen)
        return chosen

    def _csv(self, trials: Sequence[Trial]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        seeds = [f"seed_{seed}" for seed in self.phases.tuning_seeds]
        writer.writerow(["trial", *(p.path for p in self.parameters), self.metric, *seeds, "error"])
        for trial in trials:
            values = [trial.values[p.path] for p in self.parameters]
            results: list[Any] = list(trial.results) or [""] * len(seeds)
            writer.writerow([trial.number, *values, trial.mean if trial.results else "", *results, trial.error])
        return text.getvalue()

    def _print_table(self, trials: Sequence[Trial], chosen: Trial | None) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.metric} on the tuning stream (not a result to report)", title_justify="left")
        for name in ("trial", *(p.path for p in self.parameters), self.metric):
            table.add_column(name)
        ranked = sorted(trials, key=lambda t: (not t.results, -t.mean if self.goal == "maximize" else t.mean, t.number))
        for trial in ranked:
            outcome = f"{trial.mean:.4f}{' (best)' if trial is chosen else ''}" if trial.results else "failed"
            values = (Text(str(trial.values[p.path])) for p in self.parameters)  # brackets are no markup
            table.add_row(str(trial.number), *values, outcome)
        Console().print(table)
        print(f"{self.folder / RESULTS}" + (f", {self.folder / BEST}" if chosen else ""))

    # ------------------------------------------------------------------ the second phase

    def _evaluate(self, chosen: Trial, trials: Sequence[Trial], again: bool) -> int:
        if not self.phases.final_seeds:
            return 0
        path = self.folder / FINAL
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"earlier": [], "results": {}}
        if known.get("values", chosen.values) != chosen.values:
            if not again:
                raise UsageError(
                    f"{known['values']} was evaluated already, and now {chosen.values} is best; a second evaluation on "
                    "the same stream would choose by it. `--evaluate-again` makes it, and the report says so."
                )
            earlier = {"values": known["values"], "results": known["results"]}
            known = {"earlier": [*known["earlier"], earlier], "results": {}}
        known |= {"metric": self.metric, "values": chosen.values}
        facts = self._facts(chosen, trials, known["earlier"])
        print(f"Evaluating the best values with seeds {', '.join(map(str, self.phases.final_seeds))}.", flush=True)
        for seed in self.phases.final_seeds:
            if str(seed) not in known["results"]:
                written(path, json.dumps(known, indent=2) + "\n")  # from here on the stream has been used
                known["results"][str(seed)] = self._final_run(chosen, seed, facts, len(known["earlier"]))
        values = list(known["results"].values())
        known["mean"], deviation = mean_and_deviation(values)
        known["standard_deviation"] = deviation
        known |= facts
        written(path, json.dumps(known, indent=2) + "\n")
        spread = "" if deviation is None else f" ± {deviation:.4f}"
        print(
            f"{self.metric} on the evaluation stream: {known['mean']:.4f}{spread} over {len(values)} seed(s); on the "
            f"tuning stream it was {chosen.mean:.4f}. {path}"
        )
        return 0

    def _final_run(self, chosen: Trial, seed: int, facts: dict[str, Any], attempt: int) -> float:
        config = self.with_values(chosen.values)
        run = applied(config, evaluation_settings(config, self.phases, seed))
        with_protocol(run, "evaluation", facts["tuning_streams"], facts)
        folder = self.folder / ("final" if attempt == 0 else f"final_{attempt}")
        try:
            return self._measured(run, folder, f"seed_{seed}")
        except RuntimeError as error:
            raise UsageError(f"the final run of seed {seed} failed ({error}); the same command tries again.") from error

    def _facts(self, chosen: Trial, trials: Sequence[Trial], earlier: Sequence[Any]) -> dict[str, Any]:
        """How the hyperparameters were chosen, for the reports of the final runs."""
        tuning = self.checked_streams(chosen.values)[0] if self._stream_parameters else self.tuning_streams
        return {
            "tuned": dict(chosen.values),
            "tuned_on": self.phases.describe(),
            "tuning_streams": sorted(facts.fingerprint for facts in tuning.values()),
            "trials": len(trials),
            "failed_trials": sum(not trial.results for trial in trials),
            "search": self.method,
            "objective": self.metric,
            "objective_on_tuning_stream": chosen.mean,
            "earlier_evaluations": len(earlier),
        }


def report_file(folder: Path, seed: int) -> Path:
    """The report of a final run."""
    return folder / "final" / f"seed_{seed}" / FILE_NAME
