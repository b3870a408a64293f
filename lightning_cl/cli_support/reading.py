"""Reads a command line of ``fit`` as a run would, checks every value, and builds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lightning_cl.cli_support.command import ContinualCLI, run
from lightning_cl.cli_support.short_paths import plain_config


class _ParsingCLI(ContinualCLI):
    """Parses, and builds nothing."""

    def _set_seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        """Leave everything as it is."""

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def read(words: Sequence[str], configs: Sequence[str], debug: bool) -> tuple[LightningArgumentParser, dict[str, Any]]:
    """The parser of the command, and the whole configuration as plain values with full class paths.

    Args:
        words: The command line, with configs as paths.
        configs: Those paths, in order.
        debug: Let exceptions through.

    Raises:
        UsageError: If the configuration cannot be used.
        SystemExit: After ``--help`` and ``--print_config``.
    """
    made: list[ContinualCLI] = []
    code = run(list(words), list(configs), debug, lambda **options: made.append(_ParsingCLI(**options)))
    if not made:
        raise SystemExit(code)
    return made[0].parser, plain_config(made[0].parser, made[0].config)
