"""``--callbacks.CODAPrompt.prompt_length 4``: an argument of one of the callbacks, by the name of its class."""

from __future__ import annotations

import json
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from jsonargparse import ArgumentParser, Namespace

from lightning_cl.cli_support.arguments import PREFIX, argument_names, class_name, import_class, wrong_value
from lightning_cl.cli_support.configs import UsageError, suggestion


@dataclass(frozen=True)
class Assignment:
    """A value for one argument of a callback.

    Attributes:
        owner: Name of the callback's class, or its place in the list, from 0.
        argument: Name of the argument; dots lead into it.
        value: As typed.
    """

    owner: str
    argument: str
    value: str

    @property
    def path(self) -> str:
        """As typed."""
        return f"{PREFIX}{self.owner}.{self.argument}"


def split(words: Sequence[str]) -> tuple[list[str], list[Assignment]]:
    """The command line without the short paths, and those, in order.

    Raises:
        UsageError: If a value is missing, or no argument is named.
    """
    rest: list[str] = []
    found: list[Assignment] = []
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if not name.startswith("--" + PREFIX):
            rest.append(word)
            continue
        owner, _, argument = name[len("--" + PREFIX) :].partition(".")
        if not owner or not argument:
            raise UsageError(f"`{name}` names no argument; write `--callbacks.CLASS.ARGUMENT VALUE`.")
        given = value if equals else next(remaining, None)
        if given is None:
            raise UsageError(f"`{name}` needs a value.")
        found.append(Assignment(owner, argument, given))
    return rest, found


def find(names: Sequence[str], owner: str) -> int:
    """Place of a callback in the list.

    Args:
        names: Names of the callbacks' classes, in order.
        owner: One of them, or its place.

    Raises:
        UsageError: If there is none, or several of that name.
    """
    if owner.isdigit():
        if int(owner) < len(names):
            return int(owner)
        raise UsageError(f"there is no callback {owner}; the {len(names)} callbacks count from 0.")
    places = [place for place, name in enumerate(names) if name == owner]
    if len(places) == 1:
        return places[0]
    if places:
        shown = " or ".join(f"`callbacks.{place}`" for place in places)
        raise UsageError(f"there are {len(places)} callbacks `{owner}`; name the place in the list: {shown}.")
    near = suggestion(owner, names)
    raise UsageError(
        f"the configuration has no callback `{owner}`; {near} It has {', '.join(names) or 'none'}; add one with "
        f"`--trainer.callbacks+ {owner}`."
    )


def plain_config(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """A parsed configuration as plain values, without the subcommand's level."""
    # By place: with None where that is the value; the argument's name differs between versions of jsonargparse.
    content: dict[str, Any] = yaml.safe_load(parser.dump(config, "yaml", False, skip_validation=True))
    section: dict[str, Any] = content.get(str(config.get("subcommand")), content)
    return section


def parse(parser: ArgumentParser, words: Sequence[str], known: Sequence[dict[str, Any]] | None = None) -> Namespace:
    """Parse a command line that may have short paths.

    The parser sets arguments of the callback that was appended last, so the list is built anew, one by one.

    Args:
        parser: Of the whole command.
        words: The command line.
        known: The callbacks of the command line without the short paths, as plain values; found when ``None``.

    Raises:
        UsageError: If a callback, or an argument of it, is unknown, or a value has the wrong type.
        ArgumentError: For anything else that the parser refuses.
    """
    rest, assignments = split(words)
    if not assignments or any(word in ("--help", "-h") for word in rest):
        return parser.parse_args(rest)
    silent = [word for word in rest if not word.startswith("--print_config")]
    if known is None:
        known = plain_config(parser, parser.parse_args(silent))["trainer"]["callbacks"] or []
    places = [find([class_name(entry) for entry in known], assignment.owner) for assignment in assignments]
    added, checked = ["--trainer.callbacks=[]"], []
    for place, entry in enumerate(known):
        added.append(f"--trainer.callbacks+={json.dumps(entry)}")
        for assignment in (a for a, at in zip(assignments, places, strict=True) if at == place):
            added.append(f"--trainer.callbacks.{assignment.argument}={assignment.value}")
            checked.append(([*silent, *added], assignment, entry))
    try:
        return parser.parse_args([*rest, *added])
    except ArgumentError:
        for so_far, assignment, entry in checked:
            _check(parser, so_far, assignment, entry)
        raise


def _check(parser: ArgumentParser, words: list[str], assignment: Assignment, entry: dict[str, Any]) -> None:
    try:
        parser.parse_args(words)
    except ArgumentError as error:
        cls = import_class(entry["class_path"])
        names = argument_names(cls)
        if assignment.argument.partition(".")[0] not in names:
            near = suggestion(assignment.argument, names)
            raise UsageError(
                f"`{assignment.path}`: {cls.__name__} has no argument `{assignment.argument}`; {near} It has "
                f"{', '.join(names)}."
            ) from error
        raise UsageError(wrong_value(assignment.path, assignment.value, cls, assignment.argument, error)) from error
