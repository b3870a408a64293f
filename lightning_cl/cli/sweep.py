"""Sweep hyperparameters in two phases: ``lightning-cl sweep`` writes a W&B file, or tries values on this machine."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_cl.cli import sweep_phases
from lightning_cl.cli.command import interval_to_task_ends
from lightning_cl.cli.configs import UsageError, require_writable, resolve_configs, suggestion
from lightning_cl.cli.processes import Processes, Runner, interruptible
from lightning_cl.cli.sweep_phases import METRICS, Phases, applied
from lightning_cl.cli.sweep_space import Composition, Parameter, chosen_method, key_of, write
from lightning_cl.cli.sweep_space import parse as parse_space
from lightning_cl.cli.sweep_trials import LocalSweep, Trial, as_csv, best, print_table, written
from lightning_cl.datamodules.stream_plan import StreamLayout
from lightning_cl.namespace import PYTORCH
from lightning_cl.reports.comparison import mean_and_deviation
from lightning_cl.reports.report import read

DEFINITION, RESULTS, BEST, FINAL, LOG = "sweep.json", "results.csv", "best.yaml", "final.json", "log.txt"
_EVERY = "trainer.check_val_every_n_epoch"


def main(options: argparse.Namespace, rest: list[str], debug: bool, runner: Runner | None = None) -> int:
    """Print a sweep file, or try values here, in processes of their own without a runner; 1 if every trial failed."""
    words = ["--config", options.target, *rest] if options.target else rest
    if not any(word.partition("=")[0] in ("--config", "-c") for word in words):
        raise UsageError("there is nothing to sweep; begin with a recipe: `lightning-cl sweep digits_coda_prompt ...`.")
    if options.metric not in METRICS:
        near = suggestion(options.metric, list(METRICS)) or f"choose from {', '.join(METRICS)}."
        raise UsageError(f"`ContinualEvaluation` logs no metric `{options.metric}`; {near}")
    tuning, final = (tuple(range(count)) for count in (options.tuning_seeds, options.final_seeds))
    tuning = tuple(sweep_phases.FIRST_TUNING_SEED + seed for seed in tuning)
    share = sweep_phases.tuning_share(options.tune_on, options.tuning_fraction)
    phases = Phases(options.tune_on, tuning, final, options.val_split, share)
    name = "_".join(Path(path).stem for path in resolve_configs(words)[1] if "\n" not in path) or "sweep"
    folder = options.folder or Path("sweeps", name)
    if options.local is not None:
        require_writable(folder, "`--folder`")
    elif options.out:
        require_writable(options.out.parent, "`--out`")
    composition = Composition(words, debug)
    parameters = parse_space(options.param, composition.arguments, composition.typed)
    sweep_phases.check_config(composition.config, parameters)
    if options.local is None:
        text = sweep_phases.sweep_file(words, name, options, phases, composition.config, parameters)
        print(text, end="")
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text, encoding="utf-8")
            print(f"Written to {options.out}.", file=sys.stderr)
        return 0
    method = chosen_method(options.method, parameters)
    run_with = runner or Processes()
    whole = TwoPhaseSweep(folder, composition, parameters, phases, options.metric, method, options.seed, run_with)
    return whole.run(options.local, options.jobs, options.evaluate_again)


@dataclass
class TwoPhaseSweep:
    """A sweep in a folder: ``trials/``, ``results.csv``, ``best.yaml``, ``final/`` and ``final.json``."""

    folder: Path  # a sweep that is there goes on; another one is refused, and so are streams that are not apart
    composition: Composition  # what is run
    parameters: Sequence[Parameter]  # what is varied
    phases: Phases  # on what it is tuned and evaluated
    metric: str  # one of the METRICS
    method: str  # "grid", "random" or "bayes"
    seed: int  # of the search
    runner: Runner

    def __post_init__(self) -> None:
        self.goal = METRICS[self.metric]
        self._paths = [parameter.path for parameter in self.parameters]
        self._streams = self.checked_streams({})
        self._define()
        self._local = LocalSweep(self.folder, self.parameters, self.goal, self.seed, self.method)

    def checked_streams(self, values: dict[str, Any]) -> dict[str, list[StreamLayout]]:
        """Streams of both phases, one a seed, for some values of the parameters; refused if they are not apart."""
        if values and not any(path.startswith("data.") for path in self._paths):
            return self._streams
        config, phases = self.with_values(values), self.phases
        streams = {
            phase: [self.composition.stream(phases.config(phase, config, seed)).layout for seed in seeds]
            for phase, seeds in (("tuning", phases.tuning_seeds), ("evaluation", phases.final_seeds or (0,)))
        }
        for own, other in itertools.product(streams["tuning"], streams["evaluation"]):
            sweep_phases.check_apart(own, other, phases.on)
        return streams

    def with_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """The configuration with values of the parameters; with other epochs, task ends are validated all the same."""
        keys = {parameter.path: parameter.argument.key for parameter in self.parameters}
        changed = applied(self.composition.config, {keys[path]: value for path, value in values.items()})
        if "data.epochs_per_task" in values and _EVERY not in values:
            every = changed["trainer"].get("check_val_every_n_epoch")
            changed["trainer"]["check_val_every_n_epoch"] = interval_to_task_ends(every, values["data.epochs_per_task"])
        return changed

    def _define(self) -> None:
        """Write down what the sweep is, or check that the one in the folder is the same."""
        hashes = [layout.info.fingerprint for layout in self._streams["tuning"]]
        definition: dict[str, Any] = {
            "version": 1,
            "configuration": hashlib.sha256(key_of(self.composition.config).encode()).hexdigest(),
            "parameters": {parameter.path: asdict(parameter.domain) for parameter in self.parameters},
            "metric": self.metric,
            "method": self.method,
            "seed": self.seed,
            "tuning": {name: value for name, value in asdict(self.phases).items() if name != "final_seeds"},
            "tuning_streams": dict(zip(map(str, self.phases.tuning_seeds), hashes, strict=True)),
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

    def run(self, count: int, jobs: int, evaluate_again: bool) -> int:
        """Run both phases of a sweep, and return the exit code."""
        try:
            with interruptible():
                chosen, trials = self.tune(count, jobs)
                if chosen is not None:
                    return self._evaluate(chosen, trials, evaluate_again)
        except KeyboardInterrupt:
            self.runner.stop()
            trials = self._local.trials()
            self._publish(trials)
            kept = f"interrupted after {len(trials)} trials, which are kept in {self.folder}"
            print(f"\nlightning-cl: {kept}; the same command goes on.", file=sys.stderr)
            return 130
        print(f"lightning-cl: all {len(trials)} trials failed; logs: {self.folder / 'trials'}.", file=sys.stderr)
        return 1

    def tune(self, count: int, jobs: int = 1) -> tuple[Trial | None, list[Trial]]:
        """Run the first phase, and give the best trial, if one has a result, and all of them."""
        tuned, evaluated = (_shape(streams[0]) for streams in self._streams.values())
        print(f"Tuning on {self.phases.describe()}: {tuned}; evaluation: {evaluated}. Folder: {self.folder}")
        self._local.run(count, jobs, self._try, self._say, self.runner.stop)
        trials = self._local.trials()
        return self._publish(trials), trials

    def _try(self, trial: Trial) -> list[float]:
        """Results of one configuration, a tuning seed each."""
        reserved = sorted({layout.info.fingerprint for layout in self.checked_streams(trial.values)["evaluation"]})
        config, folder = self.with_values(trial.values), self.folder / "trials" / f"{trial.number:04d}"
        results = []
        for seed in self.phases.tuning_seeds:
            run = self.phases.config("tuning", config, seed)
            sweep_phases.as_trial(run)
            sweep_phases.with_protocol(run, "tuning", reserved, {"trial": trial.number, "values": trial.values})
            results.append(self._measured(run, folder, f"seed_{seed}"))
        return results

    def _measured(self, config: dict[str, Any], folder: Path, version: str) -> float:
        init_args = {"save_dir": str(folder.parent), "name": folder.name, "version": version}
        config["trainer"]["logger"] = {"class_path": f"{PYTORCH}.loggers.CSVLogger", "init_args": init_args}
        log = folder / f"{version}.{LOG}"
        code = self.runner(write(config, folder / f"{version}.yaml"), log)
        if code:
            raise RuntimeError(f"exit code {code}: {_last_error(log)}")
        value = read(folder / version).metrics.get(self.metric)
        if value is None:
            raise RuntimeError(f"the report has no {self.metric}: a task was not evaluated, or there is only one")
        return value

    def _say(self, trial: Trial) -> None:
        values = ", ".join(f"{path} {value}" for path, value in trial.values.items())
        outcome = f"failed: {trial.error}" if trial.error else f"{self.metric} {trial.mean:.4f}"
        print(f"trial {trial.number}: {values}: {outcome}", flush=True)

    def _publish(self, trials: Sequence[Trial]) -> Trial | None:
        """Table, CSV and the best configuration, which is given back."""
        chosen, files = best(trials, self.goal), [self.folder / RESULTS]
        written(files[0], as_csv(trials, self._paths, self.metric, self.phases.tuning_seeds))
        if chosen is not None:
            files.append(self.folder / BEST)
            write(self._final_config(chosen, next(iter(self.phases.final_seeds), 0)), files[1])
        print_table(trials, self._paths, self.metric, self.goal)
        print(", ".join(map(str, files)))
        return chosen

    def _evaluate(self, chosen: Trial, trials: Sequence[Trial], again: bool) -> int:
        if not self.phases.final_seeds:
            return 0
        path = self.folder / FINAL
        known = self._used_before(chosen, path, again)
        known |= {"metric": self.metric, "values": chosen.values}
        facts = self.facts(chosen, trials, known["earlier"])
        print(f"Evaluating the best values with seeds {', '.join(map(str, self.phases.final_seeds))}.", flush=True)
        for seed in self.phases.final_seeds:
            if str(seed) not in known["results"]:
                written(path, json.dumps(known, indent=2) + "\n")  # from here on the stream has been used
                known["results"][str(seed)] = self._final_run(chosen, seed, facts, len(known["earlier"]))
        values = list(known["results"].values())
        known["mean"], known["standard_deviation"] = mean_and_deviation(values)
        written(path, json.dumps(known | facts, indent=2) + "\n")
        deviation = known["standard_deviation"]
        spread = "" if deviation is None else f" ± {deviation:.4f}"
        print(
            f"{self.metric} on the evaluation stream: {known['mean']:.4f}{spread} over {len(values)} seed(s); on the "
            f"tuning stream it was {chosen.mean:.4f}. {path}"
        )
        return 0

    def _used_before(self, chosen: Trial, path: Path, again: bool) -> dict[str, Any]:
        """What is known of final runs; those of other values are earlier ones, or make a second evaluation refused."""
        known: dict[str, Any] = {"earlier": [], "results": {}}
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
        if known.get("values", chosen.values) == chosen.values:
            return known
        if not again:
            raise UsageError(
                f"{known['values']} was evaluated already, and now {chosen.values} is best; a second evaluation on "
                "the same stream would choose by it. `--evaluate-again` makes it, and the report says so."
            )
        earlier = {"values": known["values"], "results": known["results"]}
        return {"earlier": [*known["earlier"], earlier], "results": {}}

    def _final_config(self, chosen: Trial, seed: int) -> dict[str, Any]:
        return self.phases.config("evaluation", self.with_values(chosen.values), seed)

    def evaluation(self, chosen: Trial, seed: int, facts: dict[str, Any]) -> dict[str, Any]:
        """The configuration of a run of the second phase, whose report says how its values were chosen."""
        run = self._final_config(chosen, seed)
        sweep_phases.with_protocol(run, "evaluation", facts["tuning_streams"], facts)
        return run

    def _final_run(self, chosen: Trial, seed: int, facts: dict[str, Any], attempt: int) -> float:
        run = self.evaluation(chosen, seed, facts)
        folder = self.folder / ("final" if attempt == 0 else f"final_{attempt}")
        try:
            return self._measured(run, folder, f"seed_{seed}")
        except RuntimeError as error:
            raise UsageError(f"the final run of seed {seed} failed ({error}); the same command tries again.") from error

    def facts(self, chosen: Trial, trials: Sequence[Trial], earlier: Sequence[Any] = ()) -> dict[str, Any]:
        """Tell how the hyperparameters were chosen, for the reports of the final runs."""
        streams = self.checked_streams(chosen.values)["tuning"]
        return {
            "tuned": dict(chosen.values),
            "tuned_on": self.phases.describe(),
            "tuning_streams": sorted(layout.info.fingerprint for layout in streams),
            "trials": len(trials),
            "failed_trials": sum(not trial.results for trial in trials),
            "search": self.method,
            "objective": self.metric,
            "objective_on_tuning_stream": chosen.mean,
            "earlier_evaluations": len(earlier),
        }


def _shape(layout: StreamLayout) -> str:
    sizes = sorted({len(classes) for classes in layout.info.classes_per_task})
    per_task = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"{len(layout.info.classes_per_task)} task(s) of {per_task} class(es)"


def _last_error(log: Path) -> str:
    """What the command said last."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("lightning-cl:")]
    return (own or lines or ["it said nothing"])[-1]
