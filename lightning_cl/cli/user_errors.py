"""Say in one sentence what is wrong with a configuration: the parser's errors, and those written for users.

jsonargparse raises text alone, so its words are read here, and nowhere else; with other words of a later version the
whole text is shown.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import CheckpointWriteError
from lightning_cl.cli.arguments import annotated, argument_names, class_name, expected_types, import_class
from lightning_cl.cli.completion import fit_options
from lightning_cl.cli.configs import PACKAGE, suggestion
from lightning_cl.datamodules import Scenario, Source
from lightning_cl.namespace import Callback, LightningCLI, LightningModule, Logger, MisconfigurationException

_WRITTEN_FOR_USERS = (ValueError, FileNotFoundError, ImportError, FloatingPointError, CheckpointWriteError)
#: Where a configuration names a class, by the end of the key: base class, what it is called, what lists all.
_SLOTS: dict[str, tuple[type, str, str | None]] = {
    "model": (LightningModule, "model", None),
    "source": (Source, "source", "lightning-cl list sources"),
    "scenario": (Scenario, "scenario", "lightning-cl list scenarios"),
    "callbacks": (Callback, "callback", "lightning-cl list methods"),
    "logger": (Logger, "logger", None),
    "optimizer": (torch.optim.Optimizer, "optimiser", None),
    "lr_schedule": (torch.optim.lr_scheduler.LRScheduler, "schedule", None),
}
_IN_THE_LIST = " One argument of one callback is given as `--callbacks.CLASS.ARGUMENT VALUE`."

_CLASS = re.compile(r"Expected a dot import path string: (.+)|Problem with given class_path '([\w.]+)'")
_SLOT = re.compile(r"(?:Parser key \"|--)([\w.]+?)(?:\.help)?\"?:")
_OWNER = r"Problem with given class_path '(?P<cls>[\w.]+)':\s*"
_KEY = re.compile(_OWNER + r"Option '(?P<key>[\w.]+)' is not accepted")
_VALUE = re.compile(_OWNER + r"Parser key \"(?P<key>[\w.]+)\":(?P<rest>.*?)(?:\n *- (?:Not|Problem)|\Z)", re.DOTALL)
_MISSING = re.compile(_OWNER + r"(?:Key|Option) ['\"](?P<key>[\w.]+)['\"] is required")
_OPTION = re.compile(r"(?:does not accept option '|[Uu]nrecognized arguments: --)(?P<key>[\w.+]+)")
_REQUIRED = re.compile(r"arguments are required: (?P<keys>[\w., ]+)|\AKey ['\"](?P<key>[\w.]+)['\"] is required")
_PLAIN = re.compile(r"Parser key \"(?P<key>[\w.]+)\":(?P<rest>.*)", re.DOTALL)
_GIVEN = re.compile(r"(?:Got|Given) value: (.+)")


def explain(error: Exception, words: Sequence[str], configs: Sequence[str]) -> str:
    """A sentence for a parser's error: the unknown class name if that is the cause, else the parser's own words."""
    text = str(error)
    said = _unknown_class(text)
    if said is not None:
        return said
    said = _sentence(text) or next(filter(None, map(_no_settings, configs)), None)
    if said is not None:
        return said + _IN_THE_LIST * any(word.startswith("--trainer.callbacks.") for word in words)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "the configuration cannot be used: " + "\n    ".join(lines)


def _unknown_class(error: str) -> str | None:
    """Which class name is unknown, with the nearest ones."""
    for found in _CLASS.finditer(error):
        name, keys = found[1] or found[2], _SLOT.findall(error, 0, found.start())
        slot = _SLOTS.get(keys[-1].rpartition(".")[2]) if keys else None
        if slot is None:
            continue
        base, what, listing = slot
        module, dot, short = name.rpartition(".")
        try:
            problem = "there is no" if dot else "unknown"
            if hasattr(import_module(module), short) if dot else name in known_names(base):
                continue
        except (ImportError, ValueError):
            problem = "cannot import the"
        near = suggestion(short, known_names(base), listing)
        own = "a class of your own is given by its full path, `my_package.my_module.MyClass`."
        return f"{problem} {what} `{name}`; " + (f"{near} Or {own}" if near else own)
    return None


def known_names(base: type) -> list[str]:
    """Short names of the public subclasses of ``base`` that are imported."""
    found: set[str] = set()
    open_classes: list[type] = [base]
    while open_classes:
        subclasses: list[type] = open_classes.pop().__subclasses__()
        open_classes += subclasses
        found |= {
            cls.__name__
            for cls in subclasses
            if not cls.__name__.startswith("_") and "<locals>" not in cls.__qualname__ and "._" not in cls.__module__
        }
    return sorted(found)


def _sentence(error: str) -> str | None:
    """What is wrong and what to do, or ``None`` if the parser's own words have to do."""
    if found := _KEY.search(error):
        return _unknown_argument(found["cls"], found["key"])
    if found := _MISSING.search(error):
        return f"`{class_name(found['cls'])}` needs a value for `{found['key']}`."
    if found := _VALUE.search(error):
        expected = ""
        with suppress(ImportError, AttributeError, ValueError, TypeError):
            expected = annotated(import_class(found["cls"]), found["key"])
        expected = expected or expected_types(found["rest"])
        return f"`{found['key']}` of `{class_name(found['cls'])}` is {_given(found['rest'])}; expected {expected}."
    if found := _OPTION.search(error):
        near = suggestion(found["key"], [o.removeprefix("--") for o in fit_options()], "lightning-cl fit --help")
        return f"there is no option `{found['key']}`, so nothing would read it; {near}"
    found = _PLAIN.match(error)
    if found and "given class_path" not in error and _given(found["rest"]):
        types = expected_types(found["rest"])
        if types not in ("None", "another type"):  # else the parser says more
            return f"`{found['key']}` is {_given(found['rest'])}; expected {types}."
    found = _REQUIRED.search(error)
    return _incomplete((found["keys"] or found["key"]).split(", ")) if found else None


def _unknown_argument(path: str, key: str) -> str:
    says = f"`{class_name(path)}` has no argument `{key}`"
    try:
        known = argument_names(import_class(path))
    except (ImportError, AttributeError, ValueError):
        return f"{says}."
    near = suggestion(key, known)
    return f"{says}{f'; {near}' if near else '.'} It takes {', '.join(known) if known else 'no arguments'}."


def _incomplete(keys: Sequence[str]) -> str:
    missing = ", ".join(f"`{key.partition('.')[2] or key}`" for key in keys)
    return (
        f"the configuration does not say {missing}; take a recipe (`--config digits_coda_prompt`, `lightning-cl list "
        "recipes` shows all), put a method on a stream (`--config digits --config coda_prompt`), or give what is "
        "missing by its name."
    )


def _given(text: str) -> str:
    """What was given, as the parser shows it."""
    found = _GIVEN.search(text)
    return found[1].strip() if found else ""


def _no_settings(config: str) -> str | None:
    is_file = "\n" not in config and Path(config).is_file()
    text = Path(config).read_text(encoding="utf-8") if is_file else config
    name = config if is_file else "the config"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        return f"{name} is no YAML{where}: {getattr(error, 'problem', error)}."
    if isinstance(content, dict):
        return None
    return f"{name} holds no settings; write `name: value` lines, as `lightning-cl fit --print_config` shows them."


def own_message(error: BaseException | None) -> str | None:
    """What lightning_cl, or Lightning about the Trainer's arguments, said to whoever typed the configuration.

    The parser wraps what a constructor raises, so the causes are searched too. ``None``: nothing was said to them.
    """
    while error is not None:
        codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        within = bool(codes) and PACKAGE in Path(codes[-1].co_filename).parents
        of_trainer = isinstance(error, ValueError) and LightningCLI.instantiate_trainer.__code__ in codes
        if (
            isinstance(error, MisconfigurationException)
            or of_trainer
            or (within and isinstance(error, _WRITTEN_FOR_USERS))
        ):
            return str(error)
        if type(error).__module__.partition(".")[0] == "wandb" and re.search("api.key", str(error), re.I):
            return (
                f"W&B has no API key and cannot ask for one here ({error}). Log in with `wandb login`, or log offline: "
                "`WANDB_MODE=offline` in the environment, or `WandbLogger(offline=True)` (`--trainer.logger.offline "
                "true`); `wandb sync` uploads an offline run later."
            )
        error = error.__cause__ or error.__context__
    return None
