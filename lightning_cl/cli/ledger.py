"""Keep the ledger of claims: what was published, what was measured here with which recipe, what changed since.

One YAML file per claim in ``lightning_cl/ledger``; numbers are percent unless a claim says otherwise. No torch.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli.configs import PACKAGE, UsageError, packaged, suggestion

LEDGER = PACKAGE / "ledger"
NOT_RUN = "not yet run"
UNITS = ("percent", "ratio", "perplexity")
#: Costs of a run that an entry may hold: bytes of parameters, buffers and kept data; samples through the network.
COSTS = ("stored_bytes", "forward_samples", "backward_samples")
#: Settings of the Trainer, and callbacks, that only look or save: a run with them ends in the same bits as one without.
_LOOKING = {"logger", "num_sanity_val_steps"}
_OBSERVERS = {"ContinualCheckpoint", "ModelCheckpoint", "ProtocolGuard", "RichProgressBar", "TQDMProgressBar"}


@dataclass(frozen=True)
class Number:
    """One number of a claim, in the claim's unit."""

    published: float | None  # None: it is a number of our own
    spread: float | None  # standard deviation, if the source gives one
    tolerance: float  # a mean so near to what was published, else to what was measured before, is the same result


@dataclass(frozen=True)
class Measurement:
    """What a claim's recipe gave here: metric to mean, standard deviation (N - 1) and value of each seed."""

    seeds: tuple[int, ...]
    numbers: Mapping[str, Mapping[str, Any]]  # mean, std (None for one seed), values (empty where not kept)
    version: str  # of lightning_cl
    hardware: str
    minutes: float | None  # of one seed; None: not kept
    recipe_hash: str | None  # None for a command of another kind
    costs: Mapping[str, float] = field(default_factory=dict)  # mean over the seeds, of those of COSTS that are known


@dataclass(frozen=True)
class Claim:
    """A number that was published, or that this package says it reaches, and how to get it."""

    name: str
    claim: str
    recipe: tuple[str, ...]  # packaged ones, the later put on the earlier; empty if a command measures it
    overrides: tuple[str, ...]  # further words of the command line
    command: str | None  # where no recipe does it
    source: str | None  # of the published numbers; None: numbers of our own
    seeds: tuple[int, ...]
    unit: str  # "percent", "ratio" or "perplexity"
    numbers: Mapping[str, Number]  # by metric of the report
    measured: Measurement | None = None  # None: not yet run
    note: str | None = None  # what a reader must know

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

    def to_yaml(self) -> str:
        """The text of its file."""
        content = _plain(self)
        del content["name"]
        content["measured"] = content["measured"] or NOT_RUN
        text: str = yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
        return text


def _plain(value: Any) -> Any:
    """In plain values, in the order of the fields."""
    if isinstance(value, (Claim, Measurement, Number)):
        content = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {key: item for key, item in content.items() if key != "costs" or item}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def recipe_hash(recipe: Sequence[str], overrides: Sequence[str] = ()) -> str:
    """Hexadecimal SHA-256 of what decides a result: parsed recipes and overrides.

    Comments, and settings and callbacks that only look or save, do not enter.
    """
    configs = []
    for name in recipe:
        path = packaged(name)
        if path is None:
            raise UsageError(f"the ledger names the recipe `{name}`, which is not packaged.")
        configs.append(_decisive(yaml.safe_load(path.read_text(encoding="utf-8"))))
    text = json.dumps([configs, list(overrides)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a parsed recipe that decide its result."""
    trainer = {key: value for key, value in (config.get("trainer") or {}).items() if key not in _LOOKING}
    for key in ("callbacks", "callbacks+"):
        if key in trainer:
            trainer[key] = [entry for entry in trainer[key] if entry.get("class_path") not in _OBSERVERS]
    return {**config, "trainer": trainer}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample) of one value a seed."""
    spread = round(statistics.stdev(values), 3) if len(values) > 1 else None
    return {"mean": round(statistics.fmean(values), 3), "std": spread, "values": [round(value, 3) for value in values]}


def mean_costs(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each cost that all runs know, of the values of one report each."""
    known = [key for key in COSTS if all(run.get(key) is not None for run in runs)]
    return {key: round(statistics.fmean(run[key] for run in runs), 1) for key in known}


def verdict(claim: Claim, means: Mapping[str, float]) -> dict[str, bool | None]:
    """Metric to whether its mean is within tolerance of the reference; ``None``: there is nothing to compare with."""
    references = {metric: claim.reference(metric) for metric in claim.numbers}
    return {
        metric: None if near is None else abs(means[metric] - near) <= claim.numbers[metric].tolerance + 1e-9
        for metric, near in references.items()
    }


def status(claim: Claim) -> str:
    """In words: not yet run, or how what was measured compares with what was published; and whether that is stale."""
    if claim.measured is None:
        return NOT_RUN
    means = {metric: float(values["mean"]) for metric, values in claim.measured.numbers.items()}
    published = {metric: n.published for metric, n in claim.numbers.items() if n.published is not None}
    near = [abs(means[m] - said) <= claim.numbers[m].tolerance for m, said in published.items() if m in means]
    words = "measured" if not near else "reproduced" if all(near) else "not reproduced"
    return f"{words}, stale" if claim.stale else words


def claim_names(folder: Path = LEDGER) -> list[str]:
    """Names of all claims."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_claim(name: str, folder: Path = LEDGER) -> Claim:
    """The claim of that name; an entry that is not what it must be is refused with what is wrong."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        hint = suggestion(name, claim_names(folder), "lightning-cl reproduce --list")
        raise UsageError(f"the ledger has no claim `{name}`; {hint}")
    try:
        return _claim(name, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not an entry of the ledger: {error}") from error


def _claim(name: str, data: Any) -> Claim:
    given = _fields(name, "", data, [field.name for field in fields(Claim)][1:])
    if not isinstance(given["claim"], str) or not isinstance(given["numbers"], dict) or not given["numbers"]:
        raise UsageError(f"ledger entry `{name}` must have a `claim` in words and `numbers` by metric.")
    if given["unit"] not in UNITS:
        raise UsageError(f"ledger entry `{name}` has the unit {given['unit']!r}; expected one of {', '.join(UNITS)}.")
    if bool(given["recipe"]) == bool(given["command"]):
        raise UsageError(f"ledger entry `{name}` must name either a `recipe` or a `command`.")
    for key, kind in (("recipe", str), ("overrides", str), ("seeds", int)):
        if not isinstance(given[key], list):
            raise UsageError(f"ledger entry `{name}` has `{key}: {given[key]}`; write a list, `{key}: [{given[key]}]`.")
        given[key] = tuple(map(kind, given[key]))
    given["numbers"] = {metric: _number(name, metric, value) for metric, value in given["numbers"].items()}
    if given["source"] is None and any(number.published is not None for number in given["numbers"].values()):
        raise UsageError(f"ledger entry `{name}` has a published number without a `source`; say where it is from.")
    given["measured"] = _measurement(name, given["measured"], given["numbers"])
    return Claim(name, **given)


def _fields(name: str, where: str, data: Any, keys: Sequence[str]) -> dict[str, Any]:
    found = list(data) if isinstance(data, dict) else []
    if found != list(keys):
        missing, unknown = sorted(set(keys) - set(found)), sorted(map(str, set(found) - set(keys)))
        raise UsageError(
            f"ledger entry `{name}`{where} must have the keys {', '.join(keys)}, in this order; missing: "
            f"{', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )
    return dict(data)


def _number(name: str, metric: str, data: Any) -> Number:
    given = _fields(name, f", `{metric}`", data, [field.name for field in fields(Number)])
    plain = {key: None if value is None else float(value) for key, value in given.items()}
    if plain["tolerance"] is None or plain["tolerance"] <= 0:
        raise UsageError(f"ledger entry `{name}` has no tolerance above 0 for `{metric}`; say how near is the same.")
    return Number(plain["published"], plain["spread"], plain["tolerance"])


def _measurement(name: str, data: Any, numbers: Mapping[str, Number]) -> Measurement | None:
    if data == NOT_RUN:
        return None
    keys = [field.name for field in fields(Measurement)]
    given = _fields(name, ", `measured`", data, keys if "costs" in data else keys[:-1])
    if set(given.get("costs", ())) - set(COSTS):
        raise UsageError(f"ledger entry `{name}` has unknown `costs`: {sorted(given['costs'])}; known: {list(COSTS)}.")
    if set(given["numbers"]) - set(numbers):
        raise UsageError(f"ledger entry `{name}` measured something that it does not claim; claimed: {list(numbers)}.")
    for metric, values in given["numbers"].items():
        _fields(name, f", `measured`, `{metric}`", values, ("mean", "std", "values"))
        if values["values"] and len(values["values"]) != len(given["seeds"]):
            raise UsageError(f"ledger entry `{name}` must have one value of `{metric}` for each seed, or none.")
    minutes = None if given["minutes"] is None else float(given["minutes"])
    return Measurement(**{**given, "seeds": tuple(map(int, given["seeds"])), "minutes": minutes})


def markdown(claims: Sequence[Claim]) -> str:
    """The page ``docs/ledger.md``."""
    run = sum(claim.measured is not None for claim in claims)
    text = f"""# Reproduction ledger

<!-- Made by `lightning-cl reproduce --markdown > docs/ledger.md` from lightning_cl/ledger/*.yaml. -->

{len(claims)} claims, {run} of them measured, {len(claims) - run} not yet run.
`lightning-cl reproduce NAME` runs a claim over its seeds and compares; `--update` records what came out.
*Stale*: the recipe has changed since it was measured.
Mean ± standard deviation (N - 1) over the seeds. The entries, with source, hardware and minutes, are in
`lightning_cl/ledger/`.
"""
    kinds = {
        "Published numbers": [claim for claim in claims if claim.source is not None],
        "Numbers of the packaged recipes": [claim for claim in claims if claim.source is None and claim.recipe],
        "Numbers of the benchmarks": [claim for claim in claims if claim.source is None and not claim.recipe],
    }
    head = "| Claim | Number | Published | Ours | Seeds | Status |\n| --- | --- | --- | --- | --- | --- |"
    for title, part in kinds.items():
        text += "\n".join((f"\n## {title}\n", head, *(row for claim in part for row in _rows(claim)))) + "\n"
    return text


def _rows(claim: Claim) -> list[str]:
    """A row a number; what is said of the whole claim stands in the first."""
    rows = []
    measured = claim.measured.numbers if claim.measured is not None else {}
    seeds = ", ".join(map(str, claim.measured.seeds)) if claim.measured is not None else ""
    for place, (metric, number) in enumerate(claim.numbers.items()):
        ours = _spread(measured[metric]["mean"], measured[metric]["std"]) if metric in measured else ""
        told = _spread(number.published, number.spread)
        what, ending = f"`{claim.name}`: {claim.claim}", (seeds, status(claim))
        if place:
            what, ending = "", ("", "")
        elif claim.source is not None and told:
            told += f" ({claim.source})"
        rows.append("| " + " | ".join((what, f"`{metric}`", told, ours, *ending)) + " |")
    return rows


def _spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
