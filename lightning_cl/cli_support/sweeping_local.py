"""A sweep on this machine: trials with Optuna, each a run of its own; what is there stays whatever happens."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cl.cli_support.configs import UsageError
from lightning_cl.cli_support.sweeping_space import Choice, Parameter, grid, is_grid, key_of
from lightning_cl.metrics.comparison import mean_and_deviation

if TYPE_CHECKING:
    import optuna

JOURNAL, LOG = "optuna.journal", "log.txt"


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        number: From 0.
        values: Of the parameters, by path.
        results: Of the metric, one per tuning seed; empty if it failed.
        error: Why it failed.
    """

    number: int
    values: dict[str, Any]
    results: tuple[float, ...] = ()
    error: str = ""

    @property
    def mean(self) -> float:
        """Over the tuning seeds; NaN if it failed."""
        return mean_and_deviation(self.results)[0] if self.results else math.nan


def best(trials: Sequence[Trial], goal: str) -> Trial | None:
    """The best mean, the earliest of equals; ``None`` if none ended."""
    ended = [trial for trial in trials if trial.results and not math.isnan(trial.mean)]
    sign = 1 if goal == "minimize" else -1
    return min(ended, key=lambda trial: (sign * trial.mean, trial.number), default=None)


def last_error(log: Path) -> str:
    """What the command said last."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("lightning-cl:")]
    return (own or lines or ["it said nothing"])[-1]


class LocalSweep:
    """The trials of a sweep in a folder.

    Args:
        folder: Keeps everything; a sweep that is there goes on.
        parameters: The space.
        goal: ``"maximize"`` or ``"minimize"``.
        objective: Tries some values in a folder, and gives one result per tuning seed; what it raises is the trial's
            failure.
        seed: Of the sampler.
        method: ``"grid"``, ``"random"`` or ``"bayes"`` (TPE).
    """

    def __init__(
        self,
        folder: Path,
        parameters: Sequence[Parameter],
        goal: str,
        objective: Callable[[Trial], list[float]],
        seed: int,
        method: str,
    ) -> None:
        self.parameters, self.objective, self.method, self.seed = parameters, objective, method, seed
        optuna = require_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal.JournalFileBackend(
            str(folder / JOURNAL), lock_obj=optuna.storages.journal.JournalFileOpenLock(str(folder / JOURNAL))
        )
        storage = optuna.storages.JournalStorage(backend)
        self._study = optuna.create_study(
            storage=storage, study_name="sweep", direction=goal, load_if_exists=True, sampler=None
        )
        self._requeue()

    def _requeue(self) -> None:
        """Trials that were running when the sweep was stopped are tried again."""
        optuna = require_optuna()
        for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # without an error, see `trials`
            if set(trial.params) == {parameter.path for parameter in self.parameters}:
                self._study.enqueue_trial(trial.params)

    def run(self, count: int, jobs: int, report: Callable[[Trial], None], stop: Callable[[], None]) -> None:
        """Try until there are ``count`` trials, failed ones included.

        Args:
            count: Trials in all, those of earlier calls included; a grid has no more than its points.
            jobs: How many at a time.
            report: Told of every trial that ends.
            stop: Ends what is running, after Ctrl-C.

        Raises:
            KeyboardInterrupt: As it came; the trials that were running are tried again by the next sweep.
        """
        missing = self._plan(count)
        done = len(self.trials())
        self._study.sampler = self._sampler(done, jobs)
        pool = ThreadPoolExecutor(jobs)
        running: dict[Future[list[float]], tuple[optuna.trial.Trial, Trial]] = {}
        try:
            while missing or running:
                while missing and len(running) < jobs:
                    asked = self._study.ask()
                    trial = Trial(asked.number, {p.path: suggested(asked, p) for p in self.parameters})
                    future = pool.submit(self.objective, trial) if jobs > 1 else _at_once(self.objective, trial)
                    running[future] = asked, trial
                    missing -= 1
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    asked, trial = running.pop(future)
                    report(self._tell(asked, trial, future))
        except KeyboardInterrupt:
            stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _plan(self, count: int) -> int:
        """How many trials are missing; of a grid they are queued."""
        tried = self.trials()
        if self.method != "grid":
            return max(count - len(tried), 0)
        known = {key_of(trial.values) for trial in tried} | {key_of(values) for values in self._waiting()}
        points = grid(self.parameters)
        if count < len(points):  # spread over the grid, not its first corner
            points = shuffled(points, self.seed)[:count]
        for values in points:
            if key_of(values) not in known:
                self._study.enqueue_trial({path: json.dumps(value) for path, value in values.items()})
        return len([values for values in points if key_of(values) not in {key_of(t.values) for t in tried}])

    def _waiting(self) -> list[dict[str, Any]]:
        optuna = require_optuna()
        waiting = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
        queued = [trial.system_attrs["fixed_params"] for trial in waiting]
        return [{path: json.loads(value) for path, value in values.items()} for values in queued]

    def _sampler(self, done: int, jobs: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import RandomSampler, TPESampler

        if self.method == "bayes":
            return TPESampler(seed=self.seed + done, constant_liar=jobs > 1)
        return RandomSampler(seed=self.seed + done)

    def _tell(self, asked: optuna.trial.Trial, trial: Trial, future: Future[list[float]]) -> Trial:
        error = future.exception()
        if error is not None:
            asked.set_user_attr("error", str(error))
            self._study.tell(asked, state=require_optuna().trial.TrialState.FAIL)
            return Trial(trial.number, trial.values, error=str(error))
        results = future.result()
        asked.set_user_attr("results", results)
        mean = mean_and_deviation(results)[0]
        self._study.tell(asked, mean)
        return Trial(trial.number, trial.values, tuple(results))

    def trials(self) -> list[Trial]:
        """All that ended, in order; not those that were stopped."""
        optuna = require_optuna()
        ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
        found = []
        for trial in self._study.get_trials(deepcopy=False, states=ended):
            if trial.user_attrs:
                values = {p.path: decoded(p, trial.params[p.path]) for p in self.parameters}
                results = tuple(trial.user_attrs.get("results", ()))
                found.append(Trial(trial.number, values, results, trial.user_attrs.get("error", "")))
        return found


def _at_once(function: Callable[[Trial], list[float]], trial: Trial) -> Future[list[float]]:
    """As a pool does, but here and now: Ctrl-C arrives in this thread."""
    future: Future[list[float]] = Future()
    try:
        future.set_result(function(trial))
    except Exception as error:
        future.set_exception(error)
    return future


def suggested(trial: optuna.trial.Trial, parameter: Parameter) -> Any:
    """A value for a parameter."""
    domain = parameter.domain
    if isinstance(domain, Choice):  # as JSON: Optuna stores plain values only
        return json.loads(trial.suggest_categorical(parameter.path, [json.dumps(value) for value in domain.values]))
    if domain.integer:
        return trial.suggest_int(parameter.path, int(domain.low), int(domain.high), log=domain.log)
    return trial.suggest_float(parameter.path, domain.low, domain.high, log=domain.log)


def decoded(parameter: Parameter, value: Any) -> Any:
    """The value that Optuna stored."""
    return json.loads(value) if isinstance(parameter.domain, Choice) else value


def shuffled(points: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """In another order."""
    import numpy as np

    return [points[i] for i in np.random.RandomState(seed).permutation(len(points))]


def chosen_method(method: str | None, parameters: Sequence[Parameter]) -> str:
    """``method``, or by the space.

    Raises:
        UsageError: For a grid over a range.
    """
    if method == "grid" and not is_grid(parameters):
        raise UsageError("a grid needs lists of values, but a parameter is a range; use `--method random` or `bayes`.")
    return method or ("grid" if is_grid(parameters) else "bayes")


def require_optuna() -> Any:
    """Optuna.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise UsageError("`--local` needs Optuna: `pip install lightning-cl[sweep]`.") from error
    return optuna


def written(path: Path, text: str) -> None:
    """Replace a file at once, so that an interruption leaves the old one or the new one."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
