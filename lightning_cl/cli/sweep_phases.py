"""Keep the two phases of a sweep apart: what is tuned on, what is evaluated on (arXiv:2403.09066)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.callbacks.two_phase import refuse_mixing
from lightning_cl.cli.arguments import Key, class_name, set_value
from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.sweep_space import Parameter, sweep_config
from lightning_cl.datamodules.stream_plan import StreamLayout

TuneOn = Literal["order", "classes"]
Config = dict[str, Any]
#: The first seed of tuning: far from the seeds that runs are evaluated with.
FIRST_TUNING_SEED = 1000
_MEASURED = ["average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer", "learning_accuracy"]
#: Logged by ``ContinualEvaluation``, and whether more is better.
METRICS = {
    f"{space}/{name}": "minimize" if name == "forgetting" else "maximize"
    for space in ("class_il", "task_il")
    for name in _MEASURED
}
_REPORTING = ("ContinualEvaluation", "AnytimeEvaluation", "MultiLabelEvaluation")
_SET_BY_PROTOCOL = ("data.seed", "data.val_split", "data.scenario.seed")
PROTOCOL = "lightning_cl.callbacks.TwoPhaseProtocol"
_HEADER = """\
# Sweep of {name}
# wandb sweep {file}   # prints the command of the agents, which start the runs
# Each run sees the tuning stream only: {tuning}.
# Afterwards run the best values once per seed on the evaluation stream, and report only that:
#   lightning-cl fit {words} --seed_everything SEED --data.seed SEED --PARAMETER VALUE ...
"""


def tuning_share(on: TuneOn, given: float | None) -> float:
    """Give the share of the classes for tuning, half of them where none is given.

    Raises:
        UsageError: If one is given where all classes are tuned on.
    """
    if given is not None and on != "classes":
        raise UsageError("`--tuning-fraction` is of the classes, but all are tuned on; add `--tune-on classes`.")
    return 0.5 if given is None else given


@dataclass(frozen=True)
class Phases:
    """How tuning and evaluation are kept apart."""

    on: TuneOn  # other orders of the same classes, or a part of the classes, which the evaluation then does without
    tuning_seeds: tuple[int, ...]  # one class order each; a configuration counts with the mean over them
    final_seeds: tuple[int, ...]  # of the evaluation
    val_split: float = 0.2  # share of the training data that results of the tuning phase are measured on
    tuning_fraction: float = 0.5  # share of the classes for tuning

    def __post_init__(self) -> None:
        shared = sorted({*self.tuning_seeds} & {*self.final_seeds})
        if shared:
            raise UsageError(f"the seeds {shared} are meant for tuning and for evaluation; evaluate with others.")
        if not 0 < self.val_split < 1:
            raise UsageError(
                f"`--val-split` is {self.val_split}; give a share of the training data between 0 and 1: results of "
                "the tuning phase are never measured on the test split."
            )
        if not 0 < self.tuning_fraction < 1:
            raise UsageError(f"`--tuning-fraction` is {self.tuning_fraction}; give a share of the classes in (0, 1).")

    def describe(self) -> str:
        """Describe the stream that is tuned on."""
        what = f"{self.tuning_fraction:.0%} of the classes, " if self.on == "classes" else ""
        seeds = ", ".join(map(str, self.tuning_seeds))
        return f"{what}class order of seed {seeds}, measured on {self.val_split:.0%} of the training split, held out"

    def settings(self, phase: str, config: Config, seed: int) -> dict[Key, Any]:
        """List the settings that a run of a phase, ``"tuning"`` or ``"evaluation"``, changes, by their keys."""
        settings: dict[Key, Any] = {("seed_everything",): seed, ("data", "seed"): seed}
        if (config["data"]["scenario"].get("init_args") or {}).get("seed") is not None:
            settings["data", "scenario", "init_args", "seed"] = seed  # it would win over the stream's
        if phase == "tuning":
            settings["data", "val_split"] = config["data"].get("val_split") or self.val_split
        if self.on == "classes":
            part = {"part": phase, "tuning_fraction": self.tuning_fraction, "seed": 0}
            init_args = {"source": config["data"]["source"], **part}
            source = {"class_path": "lightning_cl.datamodules.ClassSubset", "init_args": init_args}
            settings["data", "source"] = source
        return settings

    def config(self, phase: str, config: Config, seed: int) -> Config:
        """The plain configuration of a run of a phase."""
        return applied(config, self.settings(phase, config, seed))


def applied(config: Config, settings: Mapping[Key, Any]) -> Config:
    """A copy of a plain configuration with other values."""
    changed = copy.deepcopy(config)
    for key, value in settings.items():
        set_value(changed, key, copy.deepcopy(value))
    return changed


def with_protocol(config: Config, phase: str, other_streams: Sequence[str], facts: dict[str, Any]) -> None:
    """Add the callback that refuses a mixture of the phases and puts both into the report; tell the guard, if any."""
    callbacks: list[dict[str, Any]] = config["trainer"]["callbacks"]
    init_args = {"phase": phase, "other_streams": list(other_streams), "facts": facts}
    callbacks.append({"class_path": PROTOCOL, "init_args": init_args})
    for entry in callbacks:
        if class_name(entry) == "ProtocolGuard" and phase == "evaluation":
            entry["init_args"] = {**(entry.get("init_args") or {}), "tuned_on": facts["tuned_on"]}


def as_trial(config: Config) -> None:
    """Without checkpoints and pictures: trials are many, and only their results are wanted."""
    trainer = config["trainer"]
    trainer["callbacks"] = [c for c in trainer["callbacks"] if not class_name(c).endswith("Checkpoint")]
    trainer["enable_checkpointing"] = False
    for entry in trainer["callbacks"]:
        if class_name(entry) in _REPORTING and (entry.get("init_args") or {}).get("report", True):
            entry["init_args"] = {**(entry.get("init_args") or {}), "report": "numbers"}


def check_config(config: Config, parameters: Sequence[Parameter]) -> None:
    """Refuse a configuration whose result is not measured, and a parameter that the protocol sets."""
    if not any(class_name(entry) == "ContinualEvaluation" for entry in config["trainer"].get("callbacks") or []):
        raise UsageError("nothing measures the result; add `--trainer.callbacks+ ContinualEvaluation`.")
    for parameter in parameters:
        if parameter.path in _SET_BY_PROTOCOL or parameter.path.startswith("data.source."):
            raise UsageError(
                f"`{parameter.path}` decides which samples are tuned on and evaluated on, so the protocol sets it and "
                "it cannot be tuned; leave it out, or change it in the recipe."
            )


def check_apart(tuning: StreamLayout, evaluation: StreamLayout, on: TuneOn) -> None:
    """Refuse to tune on what is evaluated on, also where the hashes differ but the tasks hold the same samples."""
    one, other = tuning.info, evaluation.info
    refuse_mixing("tuning", one.fingerprint, tuning.evaluation["val"].split, [other.fingerprint])
    if on == "classes":
        shared = sorted({*one.class_names} & {*other.class_names})
        if shared:
            raise UsageError(f"tuning and evaluation share the classes {shared[:5]}; their names must differ.")
        return
    size = 1 + max(int(index.max()) for layout in (tuning, evaluation) for index in layout.train_index)
    tasks = torch.full((2, size), -1)  # of the training samples; -1: not trained on
    for row, layout in zip(tasks, (tuning, evaluation), strict=True):
        for task, index in enumerate(layout.train_index):
            row[index] = task
    if torch.equal(*tasks[:, (tasks >= 0).all(0)]):
        raise UsageError(
            "the scenario deals the same samples to the same tasks with any seed, so there is no other class order to "
            "tune on; use `--tune-on classes`, or a scenario with a seeded order (`--data.scenario.class_order "
            "shuffled`)."
        )


def sweep_file(
    words: list[str],
    name: str,
    options: Any,
    phases: Phases,
    config: Config,
    parameters: list[Parameter],
) -> str:
    """The file that ``wandb sweep`` reads, for runs of the tuning phase."""
    if len(phases.tuning_seeds) > 1:
        raise UsageError("a W&B run has one result, so `--tuning-seeds` needs `--local`; leave it out.")
    run = ["fit", *words]
    for key, value in phases.settings("tuning", config, phases.tuning_seeds[0]).items():
        option = ".".join(str(part) for part in key if part != "init_args")
        run.append(f"--{option}={value if isinstance(value, (int, float)) else json.dumps(value)}")
    run += ["--trainer.logger=WandbLogger", f"--trainer.callbacks+={PROTOCOL}", "--trainer.callbacks.phase=tuning"]
    content = sweep_config(run, parameters, options.metric, METRICS[options.metric], options.method)
    file = options.out or "sweep.yaml"
    head = _HEADER.format(name=name, file=file, tuning=phases.describe(), words=" ".join(words))
    return head + str(yaml.safe_dump(content, sort_keys=False, width=120))
