"""A configuration that is not run: parsed with the command's own parser, changed as plain values, written for runs."""

from __future__ import annotations

import tempfile
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli_support.arguments import PREFIX, Argument, known_arguments, value_at, wrong_value
from lightning_cl.cli_support.command import make_stream
from lightning_cl.cli_support.configs import UsageError, resolve_configs
from lightning_cl.cli_support.reading import read
from lightning_cl.cli_support.short_paths import parse, plain_config
from lightning_cl.datamodules import ContinualDataModule


class Composition:
    """What a command line of ``fit`` describes.

    Args:
        words: The words after ``lightning-cl fit``.
        debug: Let exceptions through.

    Attributes:
        words: Those words, with every config as a path.
        config: The whole configuration as plain values, all class names as full paths.
        arguments: Every argument of it, by its short path.

    Raises:
        UsageError: If the configuration cannot be used.
    """

    def __init__(self, words: Sequence[str], debug: bool = False) -> None:
        resolved, paths = resolve_configs(["fit", *words])
        self.words = resolved[1:]
        self.parser, self.config = read(resolved, paths, debug)
        self.arguments = known_arguments(self.config)

    def typed(self, argument: Argument, text: str) -> Any:
        """The value of an argument from its text.

        Raises:
            UsageError: If it is of the wrong type.
        """
        path = argument.path if argument.path.startswith(PREFIX) else _native(argument)
        words = ["fit", *self.words, f"--{path}={text}"]
        try:
            config = parse(self.parser, words, self.config["trainer"]["callbacks"])
        except ArgumentError as error:
            raise UsageError(wrong_value(argument.path, text, argument.cls, argument.name, error)) from error
        return value_at(plain_config(self.parser, config), argument.key)

    def stream(self, config: dict[str, Any]) -> ContinualDataModule:
        """The stream of a plain configuration, laid out; the data must be there, or is downloaded."""
        with tempfile.TemporaryDirectory() as folder:
            path = write(config, Path(folder) / "config.yaml")
            parsed = self.parser.parse_args(["fit", "--config", str(path)])
        return make_stream(parsed["fit"].data)


def _native(argument: Argument) -> str:
    return ".".join(str(part) for part in argument.key if part != "init_args")


def write(config: dict[str, Any], path: Path) -> Path:
    """Write a plain configuration as YAML; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False, width=120), encoding="utf-8")
    return path
