"""What a configuration has arguments for: ``model.lr``, ``data.scenario.num_tasks``, ``callbacks.EWC.strength``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any, Literal, get_origin

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from lightning_cl.cli_support.configs import UsageError
from lightning_cl.datamodules import ContinualDataModule

#: Of the short path of a callback's argument.
PREFIX = "callbacks."
_NO_ALIAS = ("trainer.", "data.source.")
_EXPECTED = re.compile(r"Expected an? (?:<class '(?P<class>\w+)'>|(?P<other>.+?))\. Got")


@dataclass(frozen=True)
class Argument:
    """An argument of something in a configuration.

    Attributes:
        path: Its short path, for example ``callbacks.CODAPrompt.prompt_length``.
        key: Keys and places that lead to its value in the plain configuration.
        cls: The class whose constructor takes it.
    """

    path: str
    key: tuple[str | int, ...]
    cls: type

    @property
    def name(self) -> str:
        """As the constructor has it."""
        return str(self.key[-1])


def import_class(path: str) -> Any:
    """What lies at a full dotted path: a class, or a function that makes an instance."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def class_name(entry: Mapping[str, Any]) -> str:
    """Name of the class in a ``{class_path: ...}``."""
    return str(entry["class_path"]).rpartition(".")[2]


@cache
def argument_names(cls: type) -> tuple[str, ...]:
    """Names of the arguments that a configuration may give to a class, in order; also those behind ``**kwargs``."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "x", fail_untyped=False, sub_configs=True)
    return tuple(dict.fromkeys(key.split(".")[1] for key in parser.get_defaults().keys()))  # noqa: SIM118


def known_arguments(config: Mapping[str, Any]) -> dict[str, Argument]:
    """Every argument of a plain configuration, by its short path.

    Args:
        config: With all class names as full paths; see :func:`~lightning_cl.cli_support.short_paths.plain_config`.
    """
    found: list[Argument] = []
    model = config.get("model")
    if model:
        found += _of_class("model", ("model",), model)
    found += _of_values("data", ("data",), ContinualDataModule, config.get("data") or {})
    callbacks: Sequence[Mapping[str, Any]] = config["trainer"].get("callbacks") or []
    names = [class_name(entry) for entry in callbacks]
    for place, entry in enumerate(callbacks):
        owner = names[place] if names.count(names[place]) == 1 else str(place)
        found += _of_class(PREFIX + owner, ("trainer", "callbacks", place), entry)
    found += _of_values("trainer", ("trainer",), Trainer, config["trainer"])
    return {argument.path: argument for argument in found if argument.path != "trainer.callbacks"}


def _of_class(path: str, key: tuple[str | int, ...], entry: Mapping[str, Any]) -> Iterator[Argument]:
    values = entry.get("init_args") or {}
    yield from _of_values(path, (*key, "init_args"), import_class(entry["class_path"]), values)


def _of_values(path: str, key: tuple[str | int, ...], cls: type, values: Mapping[str, Any]) -> Iterator[Argument]:
    for name in argument_names(cls):
        yield Argument(f"{path}.{name}", (*key, name), cls)
        value = values.get(name)
        if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
            yield from _of_class(f"{path}.{name}", (*key, name), value)


def resolve(path: str, known: Mapping[str, Argument]) -> Argument:
    """The argument at a path, or at the one path that ends in it: ``prompt_length``, ``CODAPrompt.prompt_length``.

    Raises:
        UsageError: If there is none (the nearest are named), or there are several.
    """
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
    siblings = [other for other in known if other.rpartition(".")[0] == owner]
    near = [f"{owner}.{match}" for match in get_close_matches(name, [s.rpartition(".")[2] for s in siblings], 3, 0.5)]
    near += get_close_matches(path, known, 3, 0.75)
    near = list(dict.fromkeys(near))[:3]
    if near:
        return f"did you mean {', '.join(near)}?"
    if siblings:
        return f"{owner} has {', '.join(s.rpartition('.')[2] for s in siblings)}."
    owners = dict.fromkeys(other.rpartition(".")[0] for other in known)
    return f"it has arguments of {', '.join(owners)}."


def wrong_value(path: str, value: str, cls: type, argument: str, error: Exception) -> str:
    """One sentence for a value that the parser refused."""
    return f"`{path}` is {value!r}; expected {expected(cls, argument, error)}."


def expected(cls: type, argument: str, error: Exception) -> str:
    """The type of an argument in words: as the source has it, else as the parser says."""
    match = _EXPECTED.search(str(error))
    said = "another type" if match is None else match["class"] or match["other"]
    return annotated(cls, argument) or said


def annotated(cls: Any, argument: str) -> str:
    """The type of an argument as the source has it, a named choice with its values; empty if it has none there."""
    parameter = inspect.signature(cls).parameters.get(argument)
    if parameter is None or not isinstance(parameter.annotation, str):
        return ""
    named = getattr(cls.__init__, "__globals__", {}).get(parameter.annotation)
    return str(named).removeprefix("typing.") if get_origin(named) is Literal else parameter.annotation


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
