"""Entries of the ledger from their files, refused where they are not what an entry must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli_support.configs import UsageError, suggestion
from lightning_cl.cli_support.ledger import (
    KEYS,
    LEDGER,
    MEASURED_KEYS,
    NOT_RUN,
    NUMBER_KEYS,
    UNITS,
    Claim,
    Measurement,
    Number,
)


def parse(name: str, data: Any) -> Claim:
    """A claim of the content of its file.

    Raises:
        UsageError: If something is missing, unknown or of another kind than expected.
    """
    given = _fields(name, "", data, KEYS)
    claim, numbers = given["claim"], given["numbers"]
    if not isinstance(claim, str) or not isinstance(numbers, dict) or not numbers:
        raise UsageError(f"ledger entry `{name}` must have a `claim` in words and `numbers` by metric.")
    if given["unit"] not in UNITS:
        raise UsageError(f"ledger entry `{name}` has the unit {given['unit']!r}; expected one of {', '.join(UNITS)}.")
    if bool(given["recipe"]) == bool(given["command"]):
        raise UsageError(f"ledger entry `{name}` must name either a `recipe` or a `command`.")
    for key in ("recipe", "overrides", "seeds"):
        if not isinstance(given[key], list):
            raise UsageError(f"ledger entry `{name}` has `{key}: {given[key]}`; write a list, `{key}: [{given[key]}]`.")
    parsed = {metric: _number(name, metric, value) for metric, value in numbers.items()}
    if given["source"] is None and any(number.published is not None for number in parsed.values()):
        raise UsageError(f"ledger entry `{name}` has a published number without a `source`; say where it is from.")
    return Claim(
        name,
        claim,
        tuple(map(str, given["recipe"])),
        tuple(map(str, given["overrides"])),
        given["command"],
        given["source"],
        tuple(map(int, given["seeds"])),
        given["unit"],
        parsed,
        _measurement(name, given["measured"], parsed),
        given["note"],
    )


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
    given = _fields(name, f", `{metric}`", data, NUMBER_KEYS)
    plain = {key: None if value is None else float(value) for key, value in given.items()}
    if plain["tolerance"] is None or plain["tolerance"] <= 0:
        raise UsageError(f"ledger entry `{name}` has no tolerance above 0 for `{metric}`; say how near is the same.")
    return Number(plain["published"], plain["spread"], plain["tolerance"])


def _measurement(name: str, data: Any, numbers: Mapping[str, Number]) -> Measurement | None:
    if data == NOT_RUN:
        return None
    given = _fields(name, ", `measured`", data, MEASURED_KEYS)
    if set(given["numbers"]) - set(numbers):
        raise UsageError(f"ledger entry `{name}` measured something that it does not claim; claimed: {list(numbers)}.")
    for metric, values in given["numbers"].items():
        _fields(name, f", `measured`, `{metric}`", values, ("mean", "std", "values"))
        if values["values"] and len(values["values"]) != len(given["seeds"]):
            raise UsageError(f"ledger entry `{name}` must have one value of `{metric}` for each seed, or none.")
    minutes = None if given["minutes"] is None else float(given["minutes"])
    return Measurement(**{**given, "seeds": tuple(map(int, given["seeds"])), "minutes": minutes})


def claim_names(folder: Path = LEDGER) -> list[str]:
    """Names of all claims."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_claim(name: str, folder: Path = LEDGER) -> Claim:
    """The claim of that name.

    Raises:
        UsageError: If there is none, or its file is not an entry.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        hint = suggestion(name, claim_names(folder), "lightning-cl reproduce --list")
        raise UsageError(f"the ledger has no claim `{name}`; {hint}")
    try:
        return parse(name, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not an entry of the ledger: {error}") from error
