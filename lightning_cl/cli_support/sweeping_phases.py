"""The two phases of a sweep: what is tuned on, what is evaluated on, and that they are apart (arXiv:2403.09066)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.two_phase import refuse_mixing
from lightning_cl.cli_support.arguments import class_name, set_value
from lightning_cl.cli_support.configs import UsageError
from lightning_cl.cli_support.sweeping_space import Parameter
from lightning_cl.datamodules import ContinualDataModule

TuneOn = Literal["order", "classes"]
#: The first seed of tuning: far from the seeds that runs are evaluated with.
FIRST_TUNING_SEED = 1000
#: Logged by ``ContinualEvaluation``, and whether more is better.
METRICS = {
    f"{space}/{name}": goal
    for space in ("class_il", "task_il")
    for name, goal in (
        ("average_accuracy", "maximize"),
        ("average_incremental_accuracy", "maximize"),
        ("forgetting", "minimize"),
        ("backward_transfer", "maximize"),
        ("learning_accuracy", "maximize"),
    )
}
_SET_BY_PROTOCOL = ("data.seed", "data.val_split", "data.scenario.seed")
PROTOCOL = "lightning_cl.callbacks.TwoPhaseProtocol"


@dataclass(frozen=True)
class Phases:
    """How tuning and evaluation are kept apart.

    Attributes:
        on: ``"order"``: the same classes in other orders; ``"classes"``: a part of the classes, which the evaluation
            then does without.
        tuning_seeds: One class order each; a configuration counts with the mean over them.
        final_seeds: Of the evaluation.
        val_split: Share of the training data that results of the tuning phase are measured on.
        tuning_fraction: Share of the classes for tuning, with ``"classes"``.
    """

    on: TuneOn
    tuning_seeds: tuple[int, ...]
    final_seeds: tuple[int, ...]
    val_split: float = 0.2
    tuning_fraction: float = 0.5

    def __post_init__(self) -> None:
        shared = sorted({*self.tuning_seeds} & {*self.final_seeds})
        if shared:
            raise UsageError(f"the seeds {shared} are meant for tuning and for evaluation; use fewer `--final-seeds`.")
        if not 0 < self.val_split < 1:
            raise UsageError(
                f"`--val-split` is {self.val_split}; give a share of the training data between 0 and 1: results of "
                "the tuning phase are never measured on the test split."
            )
        if not 0 < self.tuning_fraction < 1:
            raise UsageError(f"`--tuning-fraction` is {self.tuning_fraction}; give a share of the classes in (0, 1).")

    def describe(self) -> str:
        """What is tuned on, in words."""
        what = f"{self.tuning_fraction:.0%} of the classes, " if self.on == "classes" else ""
        seeds = ", ".join(map(str, self.tuning_seeds))
        return f"{what}class order of seed {seeds}, measured on {self.val_split:.0%} of the training split, held out"


# ---------------------------------------------------------------------- configurations of the phases


def tuning_settings(config: dict[str, Any], phases: Phases, seed: int) -> dict[tuple[str | int, ...], Any]:
    """What a run of the tuning phase changes, by the keys that lead there."""
    settings = _seeded(config, seed)
    settings["data", "val_split"] = config["data"].get("val_split") or phases.val_split
    return settings | _classes(config, phases, "tuning")


def evaluation_settings(config: dict[str, Any], phases: Phases, seed: int) -> dict[tuple[str | int, ...], Any]:
    """What a run of the evaluation phase changes."""
    return _seeded(config, seed) | _classes(config, phases, "evaluation")


def _seeded(config: dict[str, Any], seed: int) -> dict[tuple[str | int, ...], Any]:
    settings: dict[tuple[str | int, ...], Any] = {("seed_everything",): seed, ("data", "seed"): seed}
    if (config["data"]["scenario"].get("init_args") or {}).get("seed") is not None:
        settings["data", "scenario", "init_args", "seed"] = seed  # it would win over the stream's
    return settings


def _classes(config: dict[str, Any], phases: Phases, part: str) -> dict[tuple[str | int, ...], Any]:
    if phases.on != "classes":
        return {}
    init_args = {"source": config["data"]["source"], "part": part, "tuning_fraction": phases.tuning_fraction, "seed": 0}
    return {("data", "source"): {"class_path": "lightning_cl.datamodules.ClassSubset", "init_args": init_args}}


def applied(config: dict[str, Any], settings: dict[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """A copy of a plain configuration with other values."""
    changed = copy.deepcopy(config)
    for key, value in settings.items():
        set_value(changed, key, copy.deepcopy(value))
    return changed


def with_protocol(config: dict[str, Any], phase: str, other_streams: Sequence[str], facts: dict[str, Any]) -> None:
    """Add the callback that refuses a mixture of the phases and puts both into the report; tell the guard, if any."""
    callbacks: list[dict[str, Any]] = config["trainer"]["callbacks"]
    init_args = {"phase": phase, "other_streams": list(other_streams), "facts": facts}
    callbacks.append({"class_path": PROTOCOL, "init_args": init_args})
    for entry in callbacks:
        if class_name(entry) == "ProtocolGuard" and phase == "evaluation":
            entry["init_args"] = {**(entry.get("init_args") or {}), "tuned_on": facts["tuned_on"]}


def without_checkpoints(config: dict[str, Any]) -> None:
    """Trials are many, and only their results are wanted."""
    trainer = config["trainer"]
    trainer["callbacks"] = [c for c in trainer["callbacks"] if not class_name(c).endswith("Checkpoint")]
    trainer["enable_checkpointing"] = False


def logged_to(config: dict[str, Any], folder: str, name: str, version: str) -> None:
    """Write into ``folder/name/version``."""
    init_args = {"save_dir": folder, "name": name, "version": version}
    config["trainer"]["logger"] = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": init_args}


def check_config(config: dict[str, Any], parameters: Sequence[Parameter]) -> None:
    """Refuse what cannot be tuned in two phases.

    Raises:
        UsageError: If the result is not measured, or a parameter is one that the protocol sets.
    """
    if not any(class_name(entry) == "ContinualEvaluation" for entry in config["trainer"].get("callbacks") or []):
        raise UsageError("nothing measures the result; add `--trainer.callbacks+ ContinualEvaluation`.")
    for parameter in parameters:
        if parameter.path in _SET_BY_PROTOCOL or parameter.path.startswith("data.source."):
            raise UsageError(
                f"`{parameter.path}` decides which samples are tuned on and evaluated on, so the protocol sets it and "
                "it cannot be tuned; leave it out, or change it in the recipe."
            )


# ---------------------------------------------------------------------- the streams


@dataclass(frozen=True)
class StreamFacts:
    """What is compared of two streams.

    Attributes:
        fingerprint: The stream's hash.
        split: The split that it validates on.
        class_names: Of all classes.
        classes_per_task: How many each task holds.
        task_of: ``(N_train,)`` task of every sample of the source's training split; -1: not trained on.
    """

    fingerprint: str
    split: str
    class_names: tuple[str, ...]
    classes_per_task: tuple[int, ...]
    task_of: Tensor

    def __str__(self) -> str:
        sizes = sorted({*self.classes_per_task})
        per_task = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        return f"{len(self.classes_per_task)} task(s) of {per_task} class(es)"


def facts_of(stream: ContinualDataModule) -> StreamFacts:
    """Facts of a stream that is laid out."""
    layout = stream.layout
    task_of = torch.full((len(stream.source.train_labels),), -1)
    for task, index in enumerate(layout.train_index):
        task_of[index] = task
    sizes = tuple(map(len, layout.info.classes_per_task))
    split = layout.evaluation["val"].split
    return StreamFacts(layout.info.fingerprint, split, layout.info.class_names, sizes, task_of)


def check_apart(tuning: StreamFacts, evaluation: StreamFacts, on: TuneOn) -> None:
    """Refuse to tune on what is evaluated on.

    Raises:
        ProtocolError: If the streams are one, or the tuning stream is measured on the test split.
        UsageError: If they differ in hash, but hold the same classes in the same tasks.
    """
    refuse_mixing("tuning", tuning.fingerprint, tuning.split, [evaluation.fingerprint])
    if on == "classes":
        shared = sorted({*tuning.class_names} & {*evaluation.class_names})
        if shared:
            raise UsageError(f"tuning and evaluation share the classes {shared[:5]}; their names must differ.")
        return
    both = (tuning.task_of >= 0) & (evaluation.task_of >= 0)
    if torch.equal(tuning.task_of[both], evaluation.task_of[both]):
        raise UsageError(
            "the scenario deals the same samples to the same tasks with any seed, so there is no other class order to "
            "tune on; use `--tune-on classes`, or a scenario with a seeded order (`--data.scenario.class_order "
            "shuffled`)."
        )
