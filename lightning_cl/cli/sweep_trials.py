"""Try the values of a sweep on this machine, chosen by Optuna; what is there stays whatever happens."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.sweep_space import Choice, Parameter, grid, key_of
from lightning_cl.reports.comparison import mean_and_deviation

JOURNAL = "optuna.journal"


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried."""

    number: int  # from 0
    values: dict[str, Any]  # of the parameters, by path
    results: tuple[float, ...] = ()  # of the metric, one per tuning seed; empty if it failed
    error: str = ""  # why it failed

    @property
    def mean(self) -> float:
        """Over the tuning seeds; NaN if it failed."""
        return mean_and_deviation(self.results)[0] if self.results else math.nan


def best(trials: Sequence[Trial], goal: str) -> Trial | None:
    """The best mean, the earliest of equals; ``None`` if none ended."""
    ended = [trial for trial in trials if not math.isnan(trial.mean)]
    sign = 1 if goal == "minimize" else -1
    return min(ended, key=lambda trial: (sign * trial.mean, trial.number), default=None)


class LocalSweep:
    """The trials of a sweep in a folder, by ``"grid"``, ``"random"`` or ``"bayes"`` (TPE); those there are kept."""

    def __init__(self, folder: Path, parameters: Sequence[Parameter], goal: str, seed: int, method: str) -> None:
        self.parameters, self.method, self.seed = parameters, method, seed
        self._optuna = optuna = require_optuna()
        self._states = optuna.trial.TrialState
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kept, path = optuna.storages.journal, str(folder / JOURNAL)
        storage = optuna.storages.JournalStorage(kept.JournalFileBackend(path, kept.JournalFileOpenLock(path)))
        self._study = optuna.create_study(storage=storage, study_name="sweep", direction=goal, load_if_exists=True)
        for trial in self._in(self._states.RUNNING):  # when the sweep was stopped: they are tried again
            self._study.tell(trial.number, state=self._states.FAIL)  # without an error, see `trials`
            values = trial.system_attrs.get("fixed_params", trial.params)
            if set(values) == {parameter.path for parameter in self.parameters}:
                self._study.enqueue_trial(values)

    def _in(self, *states: Any) -> Any:
        return self._study.get_trials(deepcopy=False, states=states)

    def run(
        self,
        count: int,
        jobs: int,
        objective: Callable[[Trial], list[float]],
        report: Callable[[Trial], None],
        stop: Callable[[], None],
    ) -> None:
        """Try until there are ``count`` trials, those of earlier calls and failed ones included.

        The objective gives one result per tuning seed; what it raises is the trial's failure. After Ctrl-C ``stop``
        ends what is running, which the next sweep tries again.
        """
        missing = self._plan(count)
        self._study.sampler = self._sampler(jobs)
        pool = ThreadPoolExecutor(jobs)
        running: dict[Future[list[float]], tuple[Any, Trial]] = {}
        try:
            while missing or running:
                while missing and len(running) < jobs:
                    asked = self._study.ask()
                    trial = Trial(asked.number, {p.path: _suggested(asked, p) for p in self.parameters})
                    future = pool.submit(objective, trial) if jobs > 1 else _at_once(objective, trial)
                    running[future] = asked, trial
                    missing -= 1
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    report(self._tell(*running.pop(future), future))
        except KeyboardInterrupt:
            stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _plan(self, count: int) -> int:
        """How many trials are missing; of a grid they are queued."""
        tried = {key_of(trial.values) for trial in self.trials()}
        if self.method != "grid":
            return max(count - len(self.trials()), 0)
        points = grid(self.parameters)
        if count < len(points):  # spread over the grid, not its first corner
            points = [points[i] for i in np.random.RandomState(self.seed).permutation(len(points))][:count]
        for values in points:
            self._study.enqueue_trial({path: json.dumps(v) for path, v in values.items()}, skip_if_exists=True)
        return len([values for values in points if key_of(values) not in tried])

    def _sampler(self, jobs: int) -> Any:
        seed = self.seed + len(self.trials())
        if self.method == "bayes":
            return self._optuna.samplers.TPESampler(seed=seed, constant_liar=jobs > 1)
        return self._optuna.samplers.RandomSampler(seed=seed)

    def _tell(self, asked: Any, trial: Trial, future: Future[list[float]]) -> Trial:
        error = future.exception()
        if error is not None:
            asked.set_user_attr("error", str(error))
            self._study.tell(asked, state=self._states.FAIL)
            return Trial(trial.number, trial.values, error=str(error))
        done = Trial(trial.number, trial.values, tuple(future.result()))
        asked.set_user_attr("results", list(done.results))
        self._study.tell(asked, done.mean)
        return done

    def trials(self) -> list[Trial]:
        """All that ended, in order; not those that were stopped."""
        found = []
        for trial in self._in(self._states.COMPLETE, self._states.FAIL):
            if trial.user_attrs:
                values = {path: json.loads(v) if isinstance(v, str) else v for path, v in trial.params.items()}
                results = tuple(trial.user_attrs.get("results", ()))
                found.append(Trial(trial.number, values, results, trial.user_attrs.get("error", "")))
        return found


def require_optuna() -> Any:
    """Optuna, or what to install for it."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise UsageError("trying values here needs Optuna: `pip install lightning-cl[sweep]`.") from error
    return optuna


def _at_once(function: Callable[[Trial], list[float]], trial: Trial) -> Future[list[float]]:
    """As a pool does, but here and now: Ctrl-C arrives in this thread."""
    future: Future[list[float]] = Future()
    try:
        future.set_result(function(trial))
    except Exception as error:
        future.set_exception(error)
    return future


def _suggested(trial: Any, parameter: Parameter) -> Any:
    domain = parameter.domain
    if isinstance(domain, Choice):  # as JSON: Optuna stores plain values only
        return json.loads(trial.suggest_categorical(parameter.path, [json.dumps(value) for value in domain.values]))
    if domain.integer:
        return trial.suggest_int(parameter.path, int(domain.low), int(domain.high), log=domain.log)
    return trial.suggest_float(parameter.path, domain.low, domain.high, log=domain.log)


def written(path: Path, text: str) -> None:
    """Replace a file at once, so that an interruption leaves the old one or the new one."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def as_csv(trials: Sequence[Trial], paths: Sequence[str], metric: str, seeds: Sequence[int]) -> str:
    """A row a trial: values, the mean and the result of each tuning seed, and why it failed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *paths, metric, *(f"seed_{seed}" for seed in seeds), "error"])
    for trial in trials:
        results = [trial.mean, *trial.results] if trial.results else [""] * (1 + len(seeds))
        writer.writerow([trial.number, *(trial.values[path] for path in paths), *results, trial.error])
    return text.getvalue()


def print_table(trials: Sequence[Trial], paths: Sequence[str], metric: str, goal: str) -> None:
    """Best first, failed ones last."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title, chosen = f"{metric} on the tuning stream (not a result to report)", best(trials, goal)
    table = Table(title=title, title_justify="left")
    for name in ("trial", *paths, metric):
        table.add_column(name)
    for trial in sorted(trials, key=lambda t: (not t.results, -t.mean if goal == "maximize" else t.mean, t.number)):
        outcome = f"{trial.mean:.4f}{' (best)' if trial is chosen else ''}" if trial.results else "failed"
        values = (Text(str(trial.values[path])) for path in paths)  # brackets are no markup
        table.add_row(str(trial.number), *values, outcome)
    Console().print(table)
