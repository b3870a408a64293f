"""Read the words of ``lightning-cl bench``: every method on one stream, ranked; torch is imported after them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lightning_cl.cli import ledger
from lightning_cl.cli.commands import SUITES
from lightning_cl.cli.comparison_options import Options, read_options, recipes_of
from lightning_cl.cli.configs import UsageError, find_config, part_names
from lightning_cl.cli.leaderboard import write_page


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Run a suite, or only write the page: 0, 1 if a run failed, 130 after Ctrl-C."""
    if not options.target:
        if options.page is None:
            raise UsageError(
                "`bench` needs a suite, such as `digits`, or `--page FILE`; see `lightning-cl bench --help`."
            )
        write_page(options.ledger or ledger.LEDGER, options.page)
        return 0
    suite = SUITES.get(options.target, options.target)
    names = options.methods or ",".join(method_names(suite))
    given = argparse.Namespace(
        methods=names, config=[suite], seeds=options.seeds, align=None, folder=options.folder or "runs/bench", target=""
    )
    asked = read_options(given, rest)
    assert isinstance(asked, Options)
    from lightning_cl.cli.bench_runs import run

    return run(suite, asked, options, debug)


def method_names(stream: str) -> list[str]:
    """Every method that may be put on a stream: its complete recipes, and all packaged methods."""
    find_config(stream)
    return sorted({*recipes_of(stream), *part_names("methods")})
