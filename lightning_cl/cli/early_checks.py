"""Find what is wrong with a command line in its text, before torch is imported: the answer is there at once.

Only what is surely wrong is refused here, in the words of the parser's errors; all else is left to the parser.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli.catalogue import entries, exported
from lightning_cl.cli.completion import fit_options
from lightning_cl.cli.configs import PACKAGE, UsageError, suggestion
from lightning_cl.cli.signatures import Parameter, run_parameters, stream_parameters, trainer_parameters

_WORD = re.compile(r"[A-Za-z]\w*")
_LITERALS = {"true", "false", "null", "none", "yes", "no", "on", "off", "inf", "nan"}
_NUMBERS = {"int", "float", "bool", "None"}
#: Where a configuration names a class: what it is called, what lists all.
_SLOTS = {
    "data.source": ("source", "lightning-cl list sources"),
    "data.scenario": ("scenario", "lightning-cl list scenarios"),
    "trainer.callbacks": ("callback", "lightning-cl list methods"),
}


def check(words: Sequence[str], configs: Sequence[str]) -> None:
    """Refuse options and classes that do not exist, words for numbers, and checkpoints that are not there.

    Args:
        words: The command line of a run.
        configs: Paths or texts of its configurations.

    Raises:
        UsageError: In one sentence.
    """
    run = words[0] if words else ""
    for option, value in options(words[1:]):
        _check_name(run, option)
        if value is not None:
            _check_value(option, value)
    for config in configs:
        _check_classes(config)


def options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Every option without its dashes, and its value, if it has one."""
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        after = words[place + 1] if place + 1 < len(words) else "--"
        yield name, value if equals else None if after.startswith("--") else after


@cache
def _known(run: str) -> dict[str, set[str]]:
    """Names on the first level, and on the second below ``data`` and ``trainer``."""
    first = {option.removeprefix("--").partition(".")[0] for option in fit_options()}
    first |= {parameter.name for parameter in run_parameters(run)} | {"callbacks", "help", "lr_scheduler", "optimizer"}
    return {
        "": first,
        "data": {parameter.name for parameter in stream_parameters()} | {"help"},
        "trainer": {parameter.name for parameter in trainer_parameters()} | {"help"},
    }


def _check_name(run: str, option: str) -> None:
    first, _, rest = option.partition(".")
    second = rest.partition(".")[0].rstrip("+")
    known = _known(run)
    if first.rstrip("+") in known[""] and (not second or second in known.get(first, {second})):
        return
    near = suggestion(option, [o.removeprefix("--") for o in fit_options()], "lightning-cl fit --help")
    raise UsageError(f"there is no option `{option}`, so nothing would read it; {near}")


def _check_value(option: str, value: str) -> None:
    slot = option.rstrip("+")
    if slot in _SLOTS:
        _check_class(slot, value)
    elif option == "ckpt_path" and value not in ("last", "best", "hpc", "null", ""):
        if not (value.startswith("registry") or "://" in value or Path(value).exists()):
            raise UsageError(
                f"there is no checkpoint `{value}`; give the path of a checkpoint, or `--ckpt_path last` for the "
                "newest of this run."
            )
    elif _WORD.fullmatch(value) and value.lower() not in _LITERALS:
        section, _, name = option.partition(".")
        known: Mapping[str, Sequence[Parameter]] = {"data": stream_parameters(), "trainer": trainer_parameters()}
        kind = next((parameter.kind for parameter in known.get(section, ()) if parameter.name == name), "")
        if option in ("seed_everything", "num_threads"):
            kind = "int | None" if option == "num_threads" else "int | bool"
        if kind and (types := plain_types(kind)) and numbers_only(types):
            raise UsageError(f"`{option}` is {value}; expected {' | '.join(types)}.")


def plain_types(kind: str) -> list[str]:
    """The parts of a type as written in source: ``Optional[Union[int, str]]`` is ``int``, ``str``, ``None``."""

    def parts(node: ast.expr) -> list[str]:
        if isinstance(node, ast.BinOp):
            return [*parts(node.left), *parts(node.right)]
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Optional", "Union"):
            within = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            found = [part for one in within for part in parts(one)]
            return [*found, "None"] if ast.unparse(node.value) == "Optional" else found
        return [ast.unparse(node)]

    return parts(ast.parse(kind, mode="eval").body)


def numbers_only(types: Sequence[str]) -> bool:
    """Whether a word that is no literal can be none of the types."""
    return all(part in _NUMBERS or re.fullmatch(r"Sequence\[(int|float)\]", part) for part in types)


def _check_class(slot: str, name: str) -> None:
    """A short name; a path with dots, a function or a dictionary is for the parser."""
    if not _WORD.fullmatch(name) or name.lower() in _LITERALS or name in _names(slot):
        return
    what, listing = _SLOTS[slot]
    own = "Or a class of your own is given by its full path, `my_package.my_module.MyClass`."
    raise UsageError(f"unknown {what} `{name}`; {suggestion(name, sorted(_names(slot)), listing)} {own}")


@cache
def _names(slot: str) -> set[str]:
    if slot != "trainer.callbacks":
        return {entry.name for entry in entries(f"{_SLOTS[slot][0]}s")}
    lightning = find_spec("lightning")
    found = exported(PACKAGE / "callbacks" / "__init__.py")
    for folder in (lightning and lightning.submodule_search_locations) or ():
        found |= exported(Path(folder, "pytorch", "callbacks", "__init__.py"))
    return found


def _check_classes(config: str) -> None:
    """The classes that a configuration names."""
    try:
        content = yaml.safe_load(config if "\n" in config or "{" in config else Path(config).read_text("utf-8"))
    except (yaml.YAMLError, OSError):
        return
    if not isinstance(content, Mapping):
        return
    for slot in _SLOTS:
        section, _, name = slot.partition(".")
        given: Any = content.get(section)
        given = (given.get(name) or given.get(f"{name}+")) if isinstance(given, Mapping) else None
        for entry in given if isinstance(given, list) else [given]:
            path = entry.get("class_path") if isinstance(entry, Mapping) else entry
            if isinstance(path, str):
                _check_class(slot, path)
