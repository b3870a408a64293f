"""Find the arguments of a configuration by short paths: ``model.lr``, ``--callbacks.CODAPrompt.prompt_length 4``."""

from __future__ import annotations

import inspect
import json
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_origin

import yaml  # type: ignore[import-untyped, unused-ignore]
from jsonargparse import ArgumentParser, Namespace

from lightning_cl.cli.configs import UsageError, suggestion
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.namespace import Trainer

#: Of the short path of a callback's argument.
PREFIX = "callbacks."
_NO_ALIAS = ("trainer.", "data.source.")
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Argument:
    """An argument of something in a configuration."""

    path: str  # the short one: callbacks.CODAPrompt.prompt_length
    key: Key  # leads to its value in the plain configuration
    cls: type  # whose constructor takes it

    @property
    def option(self) -> str:
        """Name an argument as the command line has it."""
        own = (str(part) for part in self.key if part != "init_args")
        return f"--{self.path if self.path.startswith(PREFIX) else '.'.join(own)}"


def import_class(path: str) -> Any:
    """Import a full dotted path: a class, or a function that makes an instance."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def class_name(entry: Mapping[str, Any] | str) -> str:
    """Name of the class in a path or in ``{class_path: ...}``."""
    return (entry if isinstance(entry, str) else str(entry.get("class_path", ""))).rpartition(".")[2]


@cache
def argument_names(cls: type) -> tuple[str, ...]:
    """Names of the arguments that a configuration may give to a class, in order; also those behind ``**kwargs``."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "x", fail_untyped=False, sub_configs=True)
    return tuple(dict.fromkeys(key.split(".")[1] for key in parser.get_defaults().keys()))  # noqa: SIM118


def known_arguments(config: Mapping[str, Any]) -> dict[str, Argument]:
    """Every argument of a plain configuration with full class paths, by its short path."""
    found: list[Argument] = []
    if config.get("model"):
        found += _of_class("model", ("model",), config["model"])
    found += _of_values("data", ("data",), ContinualDataModule, config.get("data") or {})
    callbacks: Sequence[Mapping[str, Any]] = config["trainer"].get("callbacks") or []
    names = [class_name(entry) for entry in callbacks]
    for place, entry in enumerate(callbacks):
        owner = names[place] if names.count(names[place]) == 1 else str(place)
        found += _of_class(PREFIX + owner, ("trainer", "callbacks", place), entry)
    found += _of_values("trainer", ("trainer",), Trainer, config["trainer"])
    return {argument.path: argument for argument in found if argument.path != "trainer.callbacks"}


def _of_class(path: str, key: Key, entry: Mapping[str, Any]) -> Iterator[Argument]:
    cls = import_class(entry["class_path"])
    return _of_values(path, (*key, "init_args"), cls, entry.get("init_args") or {})


def _of_values(path: str, key: Key, cls: type, values: Mapping[str, Any]) -> Iterator[Argument]:
    for name in argument_names(cls):
        yield Argument(f"{path}.{name}", (*key, name), cls)
        value = values.get(name)
        if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
            yield from _of_class(f"{path}.{name}", (*key, name), value)


def resolve(path: str, known: Mapping[str, Argument]) -> Argument:
    """The argument at a path, or at the one path that ends in it: ``prompt_length``, ``CODAPrompt.prompt_length``."""
    if path in known:
        return known[path]
    endings = [name for name in known if name.endswith("." + path) and not name.startswith(_NO_ALIAS)]
    if len(endings) == 1:
        return known[endings[0]]
    if endings:
        raise UsageError(f"`{path}` may be {' or '.join(endings)}; give the whole path.")
    raise UsageError(f"the configuration has no `{path}`; {_nearest(path, list(known))}")


def _nearest(path: str, known: Sequence[str]) -> str:
    """By the whole path, then by its last part: a wrong class and a wrong argument are both likely."""
    owner, _, name = path.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == owner]
    near = [f"{owner}.{match}" for match in get_close_matches(name, siblings, 3, 0.5)]
    near = list(dict.fromkeys(near + get_close_matches(path, known, 3, 0.75)))[:3]
    if near:
        return f"did you mean {', '.join(near)}?"
    if siblings:
        return f"{owner} has {', '.join(siblings)}."
    owners = dict.fromkeys(other.rpartition(".")[0] for other in known)
    return f"it has arguments of {', '.join(owners)}."


def wrong_value(path: str, value: str, cls: type, argument: str, error: Exception) -> str:
    """One sentence for a value that the parser refused."""
    return f"`{path}` is {value!r}; expected {annotated(cls, argument) or expected_types(str(error))}."


def annotated(cls: Any, argument: str) -> str:
    """The type of an argument as the source has it, a named choice with its values; empty if it has none there."""
    parameter = inspect.signature(cls).parameters.get(argument)
    if parameter is None or not isinstance(parameter.annotation, str):
        return ""
    named = getattr(cls.__init__, "__globals__", {}).get(parameter.annotation)
    return str(named).removeprefix("typing.") if get_origin(named) is Literal else parameter.annotation


def expected_types(error: str) -> str:
    """Name the types that the parser expected, as source code has them: ``int | None``."""
    found = [line.partition("Expected a")[2].removeprefix("n").partition(". Got")[0] for line in error.splitlines()]
    names = [re.sub(r"typing\.|<class '(?:[\w.]+\.)?(\w+)'>", r"\1", name.strip(" .:")) for name in found]
    return " | ".join("None" if name == "NoneType" else name for name in names if name) or "another type"


def value_at(config: Any, key: Sequence[str | int]) -> Any:
    """The value at keys and places of a plain configuration; ``None`` if it is not written there."""
    for part in key:
        if isinstance(part, str) and (not isinstance(config, Mapping) or part not in config):
            return None
        config = config[part]
    return config


def set_value(config: dict[str, Any], key: Sequence[str | int], value: Any) -> None:
    """Write a value in place; missing levels are made."""
    level: Any = config
    for part in key[:-1]:
        if isinstance(part, str) and (part not in level or level[part] is None):
            level[part] = {}
        level = level[part]
    level[key[-1]] = value


class Assignment(NamedTuple):
    """A value, as typed, for an argument of the callback of that class name or place; dots lead into an argument."""

    owner: str
    argument: str
    value: str


def split(words: Sequence[str]) -> tuple[list[str], list[Assignment]]:
    """The command line without the short paths, and those, in order."""
    rest: list[str] = []
    found: list[Assignment] = []
    remaining, start = iter(words), "--" + PREFIX
    for word in remaining:
        name, equals, value = word.partition("=")
        if not name.startswith(start):
            rest.append(word)
            continue
        owner, _, argument = name.removeprefix(start).partition(".")
        if not owner or not argument:
            raise UsageError(f"`{name}` names no argument; write `--callbacks.CLASS.ARGUMENT VALUE`.")
        given = value if equals else next(remaining, None)
        if given is None:
            raise UsageError(f"`{name}` needs a value.")
        found.append(Assignment(owner, argument, given))
    return rest, found


def find(names: Sequence[str], owner: str) -> int:
    """Place of a callback in the list of their class names; the owner is one of those, or a place."""
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
    """Parse a command line that may have short paths; ``known`` are its callbacks without those, else they are found.

    The parser sets arguments of the callback that was appended last, so the list is built anew, one by one.
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
        owner, argument, value = assignment
        path, cls = f"{PREFIX}{owner}.{argument}", import_class(entry["class_path"])
        names = argument_names(cls)
        if argument.partition(".")[0] in names:
            raise UsageError(wrong_value(path, value, cls, argument, error)) from error
        has = f"{suggestion(argument, names)} It has {', '.join(names)}."
        raise UsageError(f"`{path}`: {cls.__name__} has no argument `{argument}`; {has}") from error
