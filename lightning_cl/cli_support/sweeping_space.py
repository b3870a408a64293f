"""The space of a sweep: which arguments take which values. Pure functions of what was typed and of a type check."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_cl.cli_support.arguments import Argument, resolve
from lightning_cl.cli_support.configs import UsageError

#: How many values stand for a range of whole numbers on a logarithmic scale where a grid of values is needed.
LOG_INTEGERS = 16
_FORMS = "`a,b,c`, `low..high` or `low..high:log`"


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
        elif char in "[({":
            depth += 1
        elif char in "])}":
            depth -= 1
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def parse(
    given: Sequence[str], known: Mapping[str, Argument], typed: Callable[[Argument, str], Any]
) -> list[Parameter]:
    """The parameters of a sweep.

    Args:
        given: What stands behind each ``--param``: ``path=values``.
        known: All arguments of the configuration.
        typed: Gives the value of an argument from its text, or raises a ``UsageError``.

    Raises:
        UsageError: If there is no parameter, one is given twice, is unknown or has no values, or a value is of the
            wrong type or no range.
    """
    if not given:
        raise UsageError(
            "nothing to sweep; give at least one `--param callbacks.CODAPrompt.prompt_length=4,8` or "
            "`--param model.lr=1e-4..1e-2:log`."
        )
    parameters: list[Parameter] = []
    for text in given:
        path, equals, values = text.partition("=")
        if not equals or not path or not values.strip():
            raise UsageError(f"`--param {text}` has no values; write `--param {path or 'PATH'}=VALUES` with {_FORMS}.")
        argument = resolve(path, known)
        if any(argument.path == other.path for other in parameters):
            raise UsageError(f"`{argument.path}` is given twice; give all of its values in one `--param`.")
        parameters.append(Parameter(argument, _domain(argument, values.strip(), typed)))
    return parameters


def _domain(argument: Argument, text: str, typed: Callable[[Argument, str], Any]) -> Choice | Range:
    low, dots, high = text.partition("..")
    if dots and not text.startswith(("[", "{", '"', "'", ".")) and "," not in text:
        return _range(argument, text, low, high, typed)
    parts = split_values(text)
    if "" in parts:
        raise UsageError(f"`{argument.path}={text}` has an empty value; write {_FORMS}.")
    values = [typed(argument, part) for part in parts]
    twice = [part for place, part in enumerate(parts) if values[place] in values[:place]]
    if twice:
        raise UsageError(f"`{argument.path}={text}` has the value {twice[0]} twice; leave one out.")
    return Choice(tuple(values))


def _range(argument: Argument, text: str, low: str, high: str, typed: Callable[[Argument, str], Any]) -> Range:
    high, colon, scale = high.partition(":")
    if colon and scale != "log":
        raise UsageError(f"`{argument.path}={text}` has the scale `{scale}`; only `:log` is known.")
    ends = [typed(argument, end.strip()) for end in (low, high)]
    if any(isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end) for end in ends):
        raise UsageError(f"`{argument.path}={text}` is a range, but its ends are no numbers; list values: `a,b,c`.")
    if not ends[0] < ends[1]:
        raise UsageError(f"`{argument.path}={text}` runs from {ends[0]} to {ends[1]}; the first must be the smaller.")
    if scale == "log" and ends[0] <= 0:
        raise UsageError(f"`{argument.path}={text}` begins at {ends[0]}; a logarithmic range begins above 0.")
    return Range(ends[0], ends[1], scale == "log")


def is_grid(parameters: Sequence[Parameter]) -> bool:
    """Whether all parameters have a list of values."""
    return all(isinstance(parameter.domain, Choice) for parameter in parameters)


def grid(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Every combination of listed values, the last parameter varying fastest."""
    domains = [parameter.domain for parameter in parameters]
    values = [domain.values for domain in domains if isinstance(domain, Choice)]
    assert len(values) == len(parameters)
    paths = [parameter.path for parameter in parameters]
    return [dict(zip(paths, combination, strict=True)) for combination in itertools.product(*values)]


def log_integers(low: int, high: int, count: int = LOG_INTEGERS) -> list[int]:
    """At most ``count`` whole numbers from ``low`` to ``high``, evenly spaced in their logarithms, ends included."""
    steps = max(count - 1, 1)
    return sorted({round(low * (high / low) ** (step / steps)) for step in range(steps + 1)})


def key_of(values: Mapping[str, Any]) -> str:
    """Equal for equal values, in any order."""
    return json.dumps(values, sort_keys=True)
