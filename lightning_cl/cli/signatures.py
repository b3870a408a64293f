"""Read the arguments of classes that the command builds from source text: nothing is imported, so it is at once."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lightning_cl.cli.configs import PACKAGE

#: What a Trainer's ``fit`` and the like are given by the command itself.
_GIVEN = {"self", "model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule"}


class Parameter(NamedTuple):
    """An argument of a function: its name, its type and default as source text, and what its docstring says first."""

    name: str
    kind: str
    default: str
    about: str


@cache
def parameters(path: Path, owner: str, method: str = "__init__") -> tuple[Parameter, ...]:
    """The arguments of a method in a source file, without ``self``; none if it is not there."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == method:
                    said = (ast.get_docstring(node) or "") + "\n" + (ast.get_docstring(item) or "")
                    return tuple(_parameters(item.args, said))
    return ()


def _parameters(arguments: ast.arguments, docstring: str) -> list[Parameter]:
    plain = arguments.args[1:]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    pairs = [*zip(plain, [*missing, *arguments.defaults], strict=False)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [
        Parameter(
            argument.arg,
            "" if argument.annotation is None else ast.unparse(argument.annotation),
            "" if default is None else ast.unparse(default),
            _about(argument.arg, docstring),
        )
        for argument, default in pairs
    ]


def _about(name: str, docstring: str) -> str:
    """The first sentence that the section ``Args`` has of an argument, without markup."""
    found = re.search(rf"^    {name}: (.*(?:\n {{5,}}.*)*)", docstring, re.MULTILINE)
    text = " ".join(found[1].split()) if found else ""
    text = re.sub(r":\w+:`~?([\w.]*\.)?(\w+)`", r"\2", text).replace("``", "").replace("**", "")
    return re.split(r"(?<=[\w)\"\]])[.;](?: |$)", text, maxsplit=1)[0]


def trainer_parameters() -> tuple[Parameter, ...]:
    """Those of Lightning's Trainer."""
    return parameters(_trainer(), "Trainer")


def run_parameters(run: str) -> tuple[Parameter, ...]:
    """Those of ``Trainer.fit`` and the like that a command line gives."""
    return tuple(p for p in parameters(_trainer(), "Trainer", run) if p.name not in _GIVEN)


def stream_parameters() -> tuple[Parameter, ...]:
    """Those of the DataModule."""
    return parameters(PACKAGE / "datamodules" / "datamodule.py", "ContinualDataModule")


def model_parameters() -> tuple[Parameter, ...]:
    """Those of ``ImageClassifier``, the model of most recipes."""
    return parameters(PACKAGE / "models" / "image_classifier.py", "ImageClassifier")


def _trainer() -> Path:
    lightning = find_spec("lightning")  # finds it, and imports nothing
    assert lightning is not None
    assert lightning.submodule_search_locations is not None
    return Path(lightning.submodule_search_locations[0], "pytorch", "trainer", "trainer.py")
