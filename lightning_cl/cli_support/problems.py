"""One sentence for a parser's error: the wrong key with the nearest one, the wrong value with what was expected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli_support.arguments import annotated, argument_names, import_class
from lightning_cl.cli_support.completion import fit_options
from lightning_cl.cli_support.configs import suggestion

_OWNER = r"Problem with given class_path '(?P<cls>[\w.]+)':\s*"
_KEY = re.compile(_OWNER + r"Option '(?P<key>[\w.]+)' is not accepted")
_VALUE = re.compile(_OWNER + r"Parser key \"(?P<key>[\w.]+)\":(?P<rest>.*?)(?:\n *- (?:Not|Problem)|\Z)", re.DOTALL)
_MISSING = re.compile(_OWNER + r"(?:Key|Option) ['\"](?P<key>[\w.]+)['\"] is required")
_OPTION = re.compile(r"does not accept option '(?P<key>[\w.+]+)'")
_WORD = re.compile(r"[Uu]nrecognized arguments: --(?P<key>[\w.+]+)")
_REQUIRED = re.compile(r"arguments are required: (?P<keys>[\w., ]+)|\AKey ['\"](?P<key>[\w.]+)['\"] is required")
_PLAIN = re.compile(r"Parser key \"(?P<key>[\w.]+)\":(?P<rest>.*)", re.DOTALL)
_GIVEN = re.compile(r"Got value: (.+)|Given value: (.+)")


def sentence(error: str, configs: Sequence[str] = ()) -> str | None:
    """What is wrong and what to do, or ``None`` if the parser's own words have to do.

    Args:
        error: The parser's words.
        configs: Paths of the configs, to name the one that is no YAML.
    """
    if (found := _KEY.search(error)) is not None:
        return _unknown_argument(found["cls"], found["key"])
    if (found := _MISSING.search(error)) is not None:
        return f"`{_short(found['cls'])}` needs a value for `{found['key']}`."
    if (found := _VALUE.search(error)) is not None:
        return _wrong_value(found["cls"], found["key"], found["rest"])
    if (found := _OPTION.search(error) or _WORD.search(error)) is not None:
        known = [option.removeprefix("--") for option in fit_options()]
        near = suggestion(found["key"], known, "lightning-cl fit --help")
        return f"there is no option `{found['key']}`, so nothing would read it; {near}"
    if (found := _PLAIN.match(error)) is not None and "given class_path" not in error and _value(found["rest"]):
        types = _types(found["rest"])
        if types not in ("None", "another type"):  # else the parser says more
            return f"`{found['key']}` is {_value(found['rest'])}; expected {types}."
    if (found := _REQUIRED.search(error)) is not None:
        return _incomplete((found["keys"] or found["key"]).split(", "))
    return next(filter(None, map(_no_settings, configs)), None)


def _unknown_argument(path: str, key: str) -> str:
    name = _short(path)
    try:
        known = argument_names(import_class(path))
    except (ImportError, AttributeError, ValueError):
        return f"`{name}` has no argument `{key}`."
    takes = f"It takes {', '.join(known)}." if known else "It takes no arguments."
    near = suggestion(key, known)
    return f"`{name}` has no argument `{key}`; {near} {takes}" if near else f"`{name}` has no argument `{key}`. {takes}"


def _incomplete(keys: Sequence[str]) -> str:
    missing = ", ".join(f"`{key.partition('.')[2] or key}`" for key in keys)
    return (
        f"the configuration does not say {missing}; take a recipe (`--config digits_coda_prompt`, `lightning-cl list "
        "recipes` shows all), put a method on a stream (`--config digits --config coda_prompt`), or give what is "
        "missing by its name."
    )


def _wrong_value(path: str, key: str, rest: str) -> str:
    expected = ""
    with suppress(ImportError, AttributeError, ValueError, TypeError):
        expected = annotated(import_class(path), key)
    return f"`{key}` of `{_short(path)}` is {_value(rest)}; expected {expected or _types(rest)}."


def _value(text: str) -> str:
    """What was given, as the parser shows it."""
    return next((part for pair in _GIVEN.findall(text) for part in pair if part), "").strip()


def _types(text: str) -> str:
    """What the parser expected, as a source would have it: ``int | None``."""
    found = [line.partition("Expected a")[2].removeprefix("n").partition(". Got")[0] for line in text.splitlines()]
    names = [re.sub(r"typing\.|<class '(?:[\w.]+\.)?(\w+)'>", r"\1", name.strip(" .:")) for name in found]
    return " | ".join("None" if name == "NoneType" else name for name in names if name) or "another type"


def _no_settings(path: str) -> str | None:
    text = Path(path).read_text(encoding="utf-8") if "\n" not in path and Path(path).is_file() else path
    name = path if text != path else "the config"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        return f"{name} is no YAML{where}: {getattr(error, 'problem', error)}."
    if isinstance(content, dict):
        return None
    return f"{name} holds no settings; write `name: value` lines, as `lightning-cl fit --print_config` shows them."


def _short(path: str) -> str:
    return path.rpartition(".")[2]
