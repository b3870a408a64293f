"""Run the ``lightning-cl`` command: ``fit``, ``validate``, ``test``, ``predict`` on a stream, and what surrounds them.

Help and listings are answered before torch is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from lightning_cl import __version__
from lightning_cl.cli.commands import COMMANDS, RUNS
from lightning_cl.cli.configs import UsageError, named_configs, resolve_configs, suggestion
from lightning_cl.cli.early_checks import check
from lightning_cl.cli.options import build, parse
from lightning_cl.cli.predictions import is_folder_call
from lightning_cl.cli.run_help import page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for a command line or a configuration that cannot be run.

    ``check`` returns 1 if the protocol is violated.

    Args:
        arguments: The words after ``lightning-cl``; those of this process when ``None``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("LIGHTNING_CL_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words, debug)
    except UsageError as error:
        print(f"lightning-cl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nlightning-cl: interrupted before the run began.", file=sys.stderr)
        return 130


def _dispatch(words: list[str], debug: bool) -> int:
    name, *more = words or ["--help"]
    if name in ("-h", "--help", "help"):
        print(build().format_help(), end="")
        return 0
    if name in ("--version", "version"):
        print(f"lightning-cl {__version__}")
        return 0
    of_folder = name == "predict" and is_folder_call(more)
    if (name in RUNS and not of_folder) or name.startswith("-"):
        words = named_configs(words) if name in RUNS else words
        if name in RUNS and name not in COMMANDS and (len(words) == 1 or {"-h", "--help"} & set(words)):
            print(page(name), end="")
            return 2 if len(words) == 1 else 0
        check(words, resolve_configs(words)[1])
        from lightning_cl.cli.command import run  # imports torch

        return run(words, debug)
    if name not in COMMANDS:
        raise UsageError(f"unknown command `{name}`; " + suggestion(name, [*RUNS, *COMMANDS], "lightning-cl --help"))
    command, bare = COMMANDS[name], not more and not COMMANDS[name].alone
    try:
        options, rest = parse([name, "--help"] if bare else words)
    except SystemExit:  # --help
        return 2 if bare else 0
    unknown = [word for word in rest if word.startswith("-") and word != "-"]
    if unknown and not command.for_fit:
        raise UsageError(f"`{name}` has no option `{unknown[0]}`; see `lightning-cl {name} --help`.")
    code: int = import_module(f"lightning_cl.cli.{command.module}").main(options, rest, debug)
    return code
