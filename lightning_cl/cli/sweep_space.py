"""Parse the space of a sweep: which arguments of a configuration take which values, here and in W&B's file."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli.arguments import Argument, known_arguments, plain_config, resolve, value_at, wrong_value
from lightning_cl.cli.arguments import parse as parse_words
from lightning_cl.cli.command import make_stream, read
from lightning_cl.cli.commands import VALUE_FORMS
from lightning_cl.cli.configs import UsageError, resolve_configs
from lightning_cl.datamodules import ContinualDataModule

#: How many values stand for a range of whole numbers on a logarithmic scale where a grid of values is needed.
LOG_INTEGERS = 16
Typed = Callable[[Argument, str], Any]


class Composition:
    """What a command line of ``fit`` describes, parsed and not run: plain values, and arguments by short paths."""

    def __init__(self, words: Sequence[str], debug: bool = False) -> None:
        self.words = resolve_configs(["fit", *words])[0]
        self.parser, self.config = read(self.words, debug)
        self.arguments = known_arguments(self.config)

    def typed(self, argument: Argument, text: str) -> Any:
        """The value of an argument from its text."""
        words = [*self.words, f"{argument.option}={text}"]
        try:
            config = parse_words(self.parser, words, self.config["trainer"]["callbacks"])
        except ArgumentError as error:
            raise UsageError(wrong_value(argument.path, text, argument.cls, str(argument.key[-1]), error)) from error
        return value_at(plain_config(self.parser, config), argument.key)

    def stream(self, config: dict[str, Any]) -> ContinualDataModule:
        """The stream of a plain configuration, laid out; the data must be there, or is downloaded."""
        with tempfile.TemporaryDirectory() as folder:
            path = write(config, Path(folder) / "config.yaml")
            parsed = self.parser.parse_args(["fit", "--config", str(path)])
        return make_stream(parsed["fit"].data)


def write(config: dict[str, Any], path: Path) -> Path:
    """Write a plain configuration as YAML; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False, width=120), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number between two, both included; ``log``: uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    @property
    def integer(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Parameter:
    """An argument and the values it takes."""

    argument: Argument
    domain: Choice | Range

    @property
    def path(self) -> str:
        """The argument's short path."""
        return self.argument.path


def split_values(text: str) -> list[str]:
    """``a,b,c`` at its commas, but not within brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[({") - (char in "])}")
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def parse(given: Sequence[str], known: Mapping[str, Argument], typed: Typed) -> list[Parameter]:
    """The parameters of a sweep, from ``path=values``; ``typed`` gives or refuses the value of a text."""
    if not given:
        raise UsageError(
            "nothing to sweep; give at least one `--param callbacks.CODAPrompt.prompt_length=4,8` or "
            "`--param model.lr=1e-4..1e-2:log`."
        )
    parameters: list[Parameter] = []
    for text in given:
        path, _, values = text.partition("=")
        argument = resolve(path, known)
        if any(argument.path == other.path for other in parameters):
            raise UsageError(f"`{argument.path}` is given twice; give all of its values in one `--param`.")
        parameters.append(Parameter(argument, _domain(argument, values.strip(), typed)))
    return parameters


def _domain(argument: Argument, text: str, typed: Typed) -> Choice | Range:
    if ".." in text and not text.startswith(("[", "{", '"', "'", ".")) and "," not in text:
        return _range(argument, text, typed)
    parts = split_values(text)
    if "" in parts:
        raise UsageError(f"`{argument.path}={text}` has an empty value; write {VALUE_FORMS}.")
    values = [typed(argument, part) for part in parts]
    twice = [part for place, part in enumerate(parts) if values[place] in values[:place]]
    if twice:
        raise UsageError(f"`{argument.path}={text}` has the value {twice[0]} twice; leave one out.")
    return Choice(tuple(values))


def _range(argument: Argument, text: str, typed: Typed) -> Range:
    given = f"`{argument.path}={text}`"
    low, _, end = text.partition("..")
    high, colon, scale = end.partition(":")
    if colon and scale != "log":
        raise UsageError(f"{given} has the scale `{scale}`; only `:log` is known.")
    ends = [typed(argument, end.strip()) for end in (low, high)]
    if any(isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end) for end in ends):
        raise UsageError(f"{given} is a range, but its ends are no numbers; list values: `a,b,c`.")
    if not ends[0] < ends[1]:
        raise UsageError(f"{given} runs from {ends[0]} to {ends[1]}; the first must be the smaller.")
    if scale == "log" and ends[0] <= 0:
        raise UsageError(f"{given} begins at {ends[0]}; a logarithmic range begins above 0.")
    return Range(ends[0], ends[1], scale == "log")


def chosen_method(method: str | None, parameters: Sequence[Parameter]) -> str:
    """``method``, or by the space: ``"grid"`` if all parameters have a list of values, else ``"bayes"``."""
    ranges = [parameter.path for parameter in parameters if isinstance(parameter.domain, Range)]
    if method == "grid" and ranges:
        raise UsageError(
            f"a grid needs lists of values, but {', '.join(ranges)} is a range; list values (`a,b,c`), or use "
            "`--method random` or `--method bayes`."
        )
    return method or ("bayes" if ranges else "grid")


def grid(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Every combination of listed values, the last parameter varying fastest."""
    values = [parameter.domain.values for parameter in parameters if isinstance(parameter.domain, Choice)]
    paths = [parameter.path for parameter in parameters]
    return [dict(zip(paths, combination, strict=True)) for combination in itertools.product(*values)]


def log_integers(low: int, high: int, count: int = LOG_INTEGERS) -> list[int]:
    """At most ``count`` whole numbers from ``low`` to ``high``, evenly spaced in their logarithms, ends included."""
    steps = max(count - 1, 1)
    return sorted({round(low * (high / low) ** (step / steps)) for step in range(steps + 1)})


def key_of(values: Mapping[str, Any]) -> str:
    """Equal for equal values, in any order."""
    return json.dumps(values, sort_keys=True)


def sweep_config(
    words: Sequence[str], parameters: Sequence[Parameter], metric: str, goal: str, method: str | None = None
) -> dict[str, Any]:
    """The content of a sweep file: agents run the words with values of the parameters, for a metric that is logged."""
    return {
        "program": "lightning-cl",
        "command": ["${env}", "${program}", *words, "${args}"],
        "method": chosen_method(method, parameters),
        "metric": {"name": metric, "goal": goal},
        "parameters": {parameter.path: _entry(parameter.domain) for parameter in parameters},
    }


def _entry(domain: Choice | Range) -> dict[str, Any]:
    if isinstance(domain, Choice):
        return {"values": [_word(value) for value in domain.values]}
    if domain.integer and domain.log:  # W&B rounds logarithmic samples to floats, which no integer argument takes
        return {"values": log_integers(int(domain.low), int(domain.high))}
    kind = "int_uniform" if domain.integer else "log_uniform_values" if domain.log else "uniform"
    return {"distribution": kind, "min": domain.low, "max": domain.high}


def _word(value: Any) -> Any:
    """What the agent's ``str`` turns into a word that means the value; ``None`` would be the text "None"."""
    if value is None:
        return "null"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip() if _holds_none(value) else value


def _holds_none(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_holds_none, items))
