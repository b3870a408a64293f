"""Read the words of ``lightning-cl bench``: every method on one stream, ranked; torch is imported after them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lightning_cl.cli import ledger
from lightning_cl.cli.commands import SUITES
from lightning_cl.cli.comparison_options import Options, read_options, recipes_of
from lightning_cl.cli.configs import UsageError, find_config, part_names, require_output
from lightning_cl.cli.leaderboard import write_page


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Run a suite, or only write the page: 0, 1 if a run failed, 130 after Ctrl-C."""
    if options.page is not None:
        require_output(options.page, "--page")
    if not options.target:
        if options.page is None:
            raise UsageError(
                "`bench` needs a suite, such as `digits`, or `--page FILE`; see `lightning-cl bench --help`."
            )
        write_page(options.ledger or ledger.LEDGER, options.page)
        return 0
    if (options.tune_on != "order" or options.tuning_fraction is not None) and not options.param:
        raise UsageError(
            "`--tune-on` and `--tuning-fraction` say where values are tried, but none are given; add "
            "`--param model.lr=1e-4,1e-3`."
        )
    suite = SUITES.get(options.target, options.target)
    names = options.methods or ",".join(method_names(suite))
    given = argparse.Namespace(
        methods=names, config=[suite], seeds=options.seeds, align=None, folder=options.folder or "runs/bench", target=""
    )
    asked, budget = read_options(given, rest), None if options.budget is None else read_budget(options.budget)
    assert isinstance(asked, Options)
    if budget is not None and budget.of == "bytes":
        asked = replace(asked, most_bytes=budget.most)
        if any(param.partition("=")[0].endswith("memory_size") for param in options.param):
            raise UsageError(
                "`--budget bytes=N` sets the memory of every method, so its size cannot be tuned; drop one."
            )
    from lightning_cl.cli.bench_runs import run
    from lightning_cl.cli.sweep_phases import tuning_share

    share = tuning_share(options.tune_on, options.tuning_fraction)
    tuning = Tuning(tuple(options.param), options.tune_on, share) if options.param else None
    return run(suite, asked, options, budget, tuning, debug)


@dataclass(frozen=True)
class Tuning:
    """What every method tries before its seeds are run, and on what; see ``lightning-cl sweep``."""

    params: tuple[str, ...]  # path=values
    on: Literal["order", "classes"]
    fraction: float  # of the classes

    def words(self) -> tuple[str, ...]:
        """The options that say so."""
        part = ("--tune-on", self.on, "--tuning-fraction", str(self.fraction)) if self.on == "classes" else ()
        return (*(word for param in self.params for word in ("--param", param)), *part)


@dataclass(frozen=True)
class Budget:
    """What a run may cost at most: ``"bytes"`` stored, or ``"samples"`` through the network, forward and backward."""

    of: str
    most: int

    def over(self, costs: dict[str, float]) -> float | None:
        """What a run cost, where that is more; ``None`` where it is not, or nothing is known."""
        keys = ("stored_bytes",) if self.of == "bytes" else ("forward_samples", "backward_samples")
        cost = sum(costs.get(key, 0) for key in keys)
        return cost if cost > self.most else None


def read_budget(text: str) -> Budget:
    """``"bytes=20000000"`` or ``"samples=50000"``; anything else is refused."""
    found = re.fullmatch(r"(bytes|samples)=([1-9][0-9_]*)", text)
    if found is None:
        raise UsageError(
            f"`--budget {text}` is no budget; give what a run may store, `--budget bytes=20000000`, or the samples it "
            "may send through the network in training, forward and backward together, `--budget samples=50000`."
        )
    return Budget(found[1], int(found[2].replace("_", "")))


def method_names(stream: str) -> list[str]:
    """Every method that may be put on a stream: its complete recipes, and all packaged methods."""
    find_config(stream)
    return sorted({*recipes_of(stream), *part_names("methods")})
