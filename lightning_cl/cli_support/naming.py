"""Says in one sentence which class name of a configuration is unknown, with the nearest known ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch
import yaml  # type: ignore[import-untyped, unused-ignore]
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import Logger

from lightning_cl.cli_support.configs import suggestion
from lightning_cl.cli_support.problems import sentence
from lightning_cl.datamodules import Scenario, Source
from lightning_cl.models.classifier import OptimizerName, ScheduleName

#: Where a configuration names a class: dotted key, base class, what it is called, where all are listed.
_SLOTS: tuple[tuple[str, type, str, str | None], ...] = (
    ("model", LightningModule, "model", None),
    ("data.source", Source, "source", "lightning-cl list sources"),
    ("data.scenario", Scenario, "scenario", "lightning-cl list scenarios"),
    ("trainer.callbacks", Callback, "callback", "lightning-cl list methods"),
    ("trainer.logger", Logger, "logger", None),
    ("model.init_args.optimizer", torch.optim.Optimizer, "optimiser", None),
    ("model.init_args.lr_schedule", torch.optim.lr_scheduler.LRScheduler, "schedule", None),
)
#: Values of those keys that are no class names.
_PLAIN = {*get_args(OptimizerName), *get_args(ScheduleName), "true", "false", "null", "none"}
_IN_THE_LIST = " One argument of one callback is given as `--callbacks.CLASS.ARGUMENT VALUE`."


def explain(error: Exception, words: Sequence[str], configs: Sequence[str]) -> str:
    """A sentence for a parser's error: the unknown class name if that is the cause, else the parser's own words.

    Args:
        error: What the parser raised.
        words: The command line.
        configs: Paths of its configs.
    """
    for key, base, what, listing in _SLOTS:
        for name in (*_from_words(words, key), *(n for path in configs for n in _from_file(path, key))):
            problem = _problem(name, base)
            if problem:
                near = suggestion(name.rsplit(".", 1)[-1], known_names(base), listing)
                own = "a class of your own is given by its full path, `my_package.my_module.MyClass`."
                return f"{problem} {what} `{name}`; " + (f"{near} Or {own}" if near else own)
    said = sentence(str(error), configs)
    if said is not None:
        return said + _IN_THE_LIST * any(word.startswith("--trainer.callbacks.") for word in words)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "the configuration cannot be used: " + "\n    ".join(lines)


def known_names(base: type) -> list[str]:
    """Short names of the public subclasses of ``base`` that are imported."""
    found: set[str] = set()
    open_classes: list[type] = [base]
    while open_classes:
        subclasses: list[type] = open_classes.pop().__subclasses__()
        for cls in subclasses:
            open_classes.append(cls)
            if not cls.__name__.startswith("_") and "<locals>" not in cls.__qualname__ and "._" not in cls.__module__:
                found.add(cls.__name__)
    return sorted(found)


def _problem(name: str, base: type) -> str | None:
    if "." not in name:
        return None if name in known_names(base) else "unknown"
    module, _, cls = name.rpartition(".")
    try:
        return None if hasattr(import_module(module), cls) else "there is no"
    except ImportError:
        return "cannot import the"


def _from_words(words: Sequence[str], key: str) -> Iterator[str]:
    """Class names given as ``--key NAME``, ``--key=NAME``, ``--key+ NAME`` or ``--key.class_path NAME``."""
    options = {f"--{k}{end}" for k in (key, key.replace(".init_args", "")) for end in ("", "+", ".class_path", ".help")}
    for position, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in options:
            value = value if equals else "".join(words[position + 1 : position + 2])
            yield from _names(_load(value))


def _from_file(path: str, key: str) -> Iterator[str]:
    value = _load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else _load(path)
    *parts, last = key.split(".")
    for part in parts:
        value = value.get(part) if isinstance(value, dict) else None
    for name in (last, f"{last}+"):
        yield from _names(value.get(name) if isinstance(value, dict) else None)


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _names(value: Any) -> Iterator[str]:
    """Class names in a value: a name, ``{class_path: name}``, or a list of these."""
    if isinstance(value, str) and value and value.lower() not in _PLAIN and not Path(value).is_file():
        yield value
    elif isinstance(value, dict) and isinstance(value.get("class_path"), str):
        yield value["class_path"]
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)
