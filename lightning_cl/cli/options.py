"""Parse a command of ``lightning-cl`` and its options; imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from lightning_cl import __version__
from lightning_cl.cli.commands import COMMANDS, RUNS
from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.run_help import ABOUT, EPILOG, RUN_HELP


class Parser(argparse.ArgumentParser):
    """Says what is wrong as every part of the command does, and takes no option by its beginning."""

    def __init__(self, **options: Any) -> None:
        layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=26, width=118)
        super().__init__(**{"formatter_class": layout, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """One sentence, and where to look."""
        raise UsageError(f"{message}; `{self.prog} --help` shows the options.")


def build() -> Parser:
    """The parser of ``lightning-cl``, with one below for each command."""
    usage = "lightning-cl COMMAND [options]"
    whole = Parser(prog="lightning-cl", usage=usage, description=ABOUT, epilog=EPILOG)
    whole.add_argument("--version", action="version", version=f"lightning-cl {__version__}")
    below = whole.add_subparsers(title="commands", dest="command", metavar="COMMAND [options]", prog="lightning-cl")
    for run in (name for name in RUNS if name not in COMMANDS):
        below.add_parser(run, help=RUN_HELP[run], add_help=False)
    for name, command in COMMANDS.items():
        says = " ".join(command.text.split()).partition(".")[0]
        what = f"{name} {command.usage.partition(' [')[0]}: {says[0].lower()}{says[1:]}"
        usage = f"lightning-cl {name} {command.usage}"
        text = f"example:\n  {command.example}\n\n{command.text}"
        parser = below.add_parser(name, usage=usage, help=what, description=text, epilog=command.end)
        first, _, what = command.target.partition("  ")
        parser.add_argument("target", metavar=first, help=what)
        for option, value, does, more in command.options:
            default = "" if more.get("default") in (None, []) else " (%(default)s)"
            metavar: dict[str, Any] = {"metavar": value} if value else {}
            parser.add_argument(*option.split(), help=does + default, **more, **metavar)
    return whole


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of one of the :data:`COMMANDS`, and the words that it does not know.

    Its ``target`` is the first word, ``""`` if that is an option; a later word may be the value of one of ``fit``.
    """
    command, *given = words
    return build().parse_known_args([command, *([] if given and given[0][:1] != "-" else [""]), *given])
