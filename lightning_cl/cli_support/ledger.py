"""The reproduction ledger: what was published, what was measured here with which recipe, and what has changed since.

One YAML file per claim in ``lightning_cl/ledger``; numbers are percent unless a claim says otherwise. No torch.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli_support.catalogue import PACKAGE
from lightning_cl.cli_support.configs import UsageError, packaged

LEDGER = PACKAGE / "ledger"
NOT_RUN = "not yet run"
UNITS = ("percent", "ratio")
KEYS = ("claim", "recipe", "overrides", "command", "source", "seeds", "unit", "numbers", "measured", "note")
NUMBER_KEYS = ("published", "spread", "tolerance")
MEASURED_KEYS = ("seeds", "numbers", "version", "hardware", "minutes", "recipe_hash")
#: Settings of the Trainer, and callbacks, that only look or save: a run with them ends in the same bits as one without.
_LOOKING = {"logger", "num_sanity_val_steps"}
_OBSERVERS = {"ContinualCheckpoint", "ModelCheckpoint", "ProtocolGuard", "RichProgressBar", "TQDMProgressBar"}


@dataclass(frozen=True)
class Number:
    """One number of a claim.

    Attributes:
        published: What the source says; ``None``: it is a number of our own.
        spread: Its standard deviation, if the source gives one.
        tolerance: How far a mean may be from what was published (else: from what was measured before) and still count
            as the same result, in the claim's unit.
    """

    published: float | None
    spread: float | None
    tolerance: float


@dataclass(frozen=True)
class Measurement:
    """What a claim's recipe gave here.

    Attributes:
        seeds: One run each.
        numbers: Metric to ``{"mean": ..., "std": ..., "values": [...]}``; the standard deviation is that of a sample
            (N - 1), ``None`` for one seed; ``values`` are by seed, and empty where only the mean was kept.
        version: Of lightning_cl.
        hardware: In words.
        minutes: Of one seed; ``None``: not kept.
        recipe_hash: Of the recipe that was run; ``None`` for a command of another kind.
    """

    seeds: tuple[int, ...]
    numbers: Mapping[str, Mapping[str, Any]]
    version: str
    hardware: str
    minutes: float | None
    recipe_hash: str | None


@dataclass(frozen=True)
class Claim:
    """A number that was published, or that this package says it reaches, and how to get it.

    Attributes:
        name: Of the file.
        claim: What is said, in words.
        recipe: Packaged recipes, the later ones put on the earlier; empty for a claim that a ``command`` measures.
        overrides: Further words of the command line.
        command: What to run where no recipe does it; ``None`` with a recipe.
        source: Where the published numbers are from; ``None``: numbers of our own.
        seeds: Runs to average over.
        unit: ``"percent"`` or ``"ratio"``.
        numbers: Metric of the report to what is claimed.
        measured: ``None``: not yet run.
        note: What a reader must know.
    """

    name: str
    claim: str
    recipe: tuple[str, ...]
    overrides: tuple[str, ...]
    command: str | None
    source: str | None
    seeds: tuple[int, ...]
    unit: str
    numbers: Mapping[str, Number]
    measured: Measurement | None = None
    note: str | None = field(default=None)

    @property
    def stale(self) -> bool:
        """The recipe is no longer the one that was measured."""
        if self.measured is None or self.measured.recipe_hash is None:
            return False
        return self.measured.recipe_hash != recipe_hash(self.recipe, self.overrides)

    def reference(self, metric: str) -> float | None:
        """The number to compare a new mean with: the published one, else the one measured before."""
        published = self.numbers[metric].published
        if published is not None or self.measured is None or metric not in self.measured.numbers:
            return published
        return float(self.measured.numbers[metric]["mean"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the file."""
        measured: Any = NOT_RUN
        if self.measured is not None:
            values = {key: getattr(self.measured, key) for key in MEASURED_KEYS}
            measured = {**values, "seeds": list(values["seeds"]), "numbers": _plain(values["numbers"])}
        numbers = {metric: {key: getattr(n, key) for key in NUMBER_KEYS} for metric, n in self.numbers.items()}
        given = {key: getattr(self, key) for key in KEYS}
        lists = {key: list(given[key]) for key in ("recipe", "overrides", "seeds")}
        return {**given, **lists, "numbers": numbers, "measured": measured}

    def to_yaml(self) -> str:
        """The text of its file."""
        text: str = yaml.safe_dump(
            self.to_dict(), sort_keys=False, width=120, allow_unicode=True, default_flow_style=None
        )
        return text


def _plain(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {metric: dict(values) for metric, values in numbers.items()}


def recipe_hash(recipe: Sequence[str], overrides: Sequence[str] = ()) -> str:
    """Hexadecimal SHA-256 of what decides a result: parsed recipes and overrides.

    Comments, and settings and callbacks that only look or save, do not enter.

    Raises:
        UsageError: If a recipe is not packaged.
    """
    configs = []
    for name in recipe:
        path = packaged(name)
        if path is None:
            raise UsageError(f"the ledger names the recipe `{name}`, which is not packaged.")
        configs.append(decisive(yaml.safe_load(path.read_text(encoding="utf-8"))))
    text = json.dumps([configs, list(overrides)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a parsed recipe that decide its result."""
    trainer = {key: value for key, value in (config.get("trainer") or {}).items() if key not in _LOOKING}
    for key in ("callbacks", "callbacks+"):
        if key in trainer:
            trainer[key] = [entry for entry in trainer[key] if entry.get("class_path") not in _OBSERVERS]
    return {**config, "trainer": trainer}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample) of one value a seed."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": round(statistics.fmean(values), 3),
        "std": None if spread is None else round(spread, 3),
        "values": [round(value, 3) for value in values],
    }


def verdict(claim: Claim, means: Mapping[str, float]) -> dict[str, bool | None]:
    """Metric to whether its mean is within tolerance of the reference; ``None``: there is nothing to compare with."""
    found: dict[str, bool | None] = {}
    for metric, number in claim.numbers.items():
        reference = claim.reference(metric)
        near = None if reference is None else abs(means[metric] - reference) <= number.tolerance + 1e-9
        found[metric] = near
    return found


def status(claim: Claim) -> str:
    """In words: not yet run, or how what was measured compares with what was published; and whether that is stale."""
    if claim.measured is None:
        return NOT_RUN
    means = {metric: float(values["mean"]) for metric, values in claim.measured.numbers.items()}
    published = {metric for metric, number in claim.numbers.items() if number.published is not None} & set(means)
    words = "measured"
    if published:
        near = [abs(means[m] - (claim.numbers[m].published or 0.0)) <= claim.numbers[m].tolerance for m in published]
        words = "reproduced" if all(near) else "not reproduced"
    return f"{words}, stale" if claim.stale else words
