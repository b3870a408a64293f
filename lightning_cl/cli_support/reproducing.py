"""``lightning-cl reproduce``: run a claim of the ledger over its seeds and compare."""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning_cl import __version__
from lightning_cl.cli_support.configs import UsageError, resolve_configs
from lightning_cl.cli_support.ledger import LEDGER, Claim, Measurement, recipe_hash, status, summary, verdict
from lightning_cl.cli_support.ledger_page import markdown
from lightning_cl.cli_support.ledger_reading import claim_names, read_claim

REPRODUCE_HELP = """\
usage: lightning-cl reproduce NAME [--seeds 0,1,2] [--update] [options as for `fit`]
       lightning-cl reproduce --list | --markdown

Run a claim of the ledger over its seeds, compare with what was published (or, where nothing was, with what was measured
before), and print the verdict and the updated entry.

  NAME                 of a claim: `lightning-cl reproduce --list`
  --seeds 0,1,2        instead of the claim's own
  --update             write the entry back into the ledger; not together with options that change the run
  --ledger FOLDER      a ledger of your own, one YAML a claim
  --runs FOLDER        where the runs go (runs/reproduce)
  --markdown           all claims as a page

exit code: 0 within tolerance (or nothing to compare with), 1 outside, 2 cannot be run
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `lightning-cl reproduce --help` shows all options.")


def reproduce(words: list[str], debug: bool) -> int:
    """Run the subcommand and return its exit code.

    Args:
        words: The command line after ``reproduce``.
        debug: Let exceptions through.

    Raises:
        UsageError: If there is no such claim, or it cannot be run.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--seeds")
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    parser.add_argument("--runs", type=Path, default=Path("runs", "reproduce"))
    for flag in ("--update", "--list", "--markdown"):
        parser.add_argument(flag, action="store_true")
    given, extra = parser.parse_known_args(words)
    if not given.ledger.is_dir():
        raise UsageError(f"`--ledger {given.ledger}` is not a folder; give one that holds a YAML file for each claim.")
    if given.list or given.markdown:
        claims = [read_claim(name, given.ledger) for name in claim_names(given.ledger)]
        print(markdown(claims), end="") if given.markdown else show(claims)
        return 0
    if given.name is None:
        raise UsageError("`reproduce` needs the name of a claim; `lightning-cl reproduce --list` shows all.")
    claim = read_claim(given.name, given.ledger)
    if given.update and extra:
        raise UsageError(
            f"`--update` was given with {shlex.join(extra)}, which changes the run, so that it is not the claim's; "
            "leave one of them out."
        )
    seeds = claim.seeds if given.seeds is None else _seeds(given.seeds)
    measured = measure(claim, seeds, extra, given.runs / claim.name, debug)
    if isinstance(measured, int):
        return measured
    updated = dataclasses.replace(claim, measured=measured)
    within = _tell(claim, measured, seeds, extra)
    print("\n" + updated.to_yaml(), end="")
    if given.update:
        path = given.ledger / f"{claim.name}.yaml"
        path.write_text(updated.to_yaml(), encoding="utf-8")
        print(f"Written to {path}.")
    return 0 if within else 1


def show(claims: Sequence[Claim]) -> None:
    """All claims with their status, as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="ledger", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True)
    table.add_column()
    for claim in claims:
        table.add_row(claim.name, status(claim), claim.claim)
    Console().print(table)


def measure(claim: Claim, seeds: Sequence[int], extra: Sequence[str], folder: Path, debug: bool) -> Measurement | int:
    """Run the claim's recipe once for each seed; the exit code of a run that was stopped.

    Args:
        claim: What to run.
        seeds: Of the runs.
        extra: Further words of the command line.
        folder: Where the runs go, ``seed_<seed>/version_<n>``.
        debug: Let exceptions through.

    Raises:
        UsageError: If the claim has no recipe, or a run cannot be made.
    """
    if not claim.recipe:
        raise UsageError(
            f"`{claim.name}` was measured by a benchmark of the repository, not by a recipe: {claim.command}"
        )
    from lightning_cl.cli_support.command import run  # imports torch

    values: dict[str, list[float]] = {metric: [] for metric in claim.numbers}
    began = time.monotonic()
    for seed in seeds:
        here, before = folder / f"seed_{seed}", set((folder / f"seed_{seed}").glob("version_*"))
        words = [word for name in claim.recipe for word in ("--config", name)]
        words += [*claim.overrides, "--seed_everything", str(seed), "--data.seed", str(seed)]
        logger = "--trainer.logger.init_args."
        words += [f"{logger}save_dir={folder}", f"{logger}name={here.name}", *extra]
        print(f"{claim.name}, seed {seed}: lightning-cl {shlex.join(['fit', *words])}", flush=True)
        code = run(*resolve_configs(["fit", *words]), debug)
        if code:
            return code
        reached = _report(set(here.glob("version_*")) - before, here)
        for metric in values:
            values[metric].append(_value(reached, metric, claim))
    return Measurement(
        tuple(seeds),
        {metric: summary(found) for metric, found in values.items()},
        __version__,
        hardware(),
        round((time.monotonic() - began) / 60 / len(seeds), 2),
        recipe_hash(claim.recipe, claim.overrides),
    )


def _report(new: set[Path], folder: Path) -> Any:
    from lightning_cl.metrics.report import FILE_NAME, read

    found = [path for path in new if (path / FILE_NAME).is_file()]
    if len(found) != 1:
        raise UsageError(
            f"the run left no {FILE_NAME} of its own below {folder}, so there is nothing to compare; it needs the "
            "logger of its recipe and `ContinualEvaluation`."
        )
    return read(found[0])


def _value(report: Any, metric: str, claim: Claim) -> float:
    """A metric of a report, in the unit of the claim."""
    space, _, name = metric.partition("/")
    metrics = (report.anytime or {}).get("metrics", {}) if space == "anytime" else report.metrics
    value = metrics.get(name if space == "anytime" else metric)
    if value is None:
        raise UsageError(
            f"`{claim.name}` claims `{metric}`, which the run did not measure: it was cut short, or evaluates other "
            f"things ({', '.join(key for key, known in metrics.items() if known is not None) or 'nothing'})."
        )
    return float(value) * (100.0 if claim.unit == "percent" else 1.0)


def _tell(claim: Claim, measured: Measurement, seeds: Sequence[int], extra: Sequence[str]) -> bool:
    found = verdict(claim, {metric: values["mean"] for metric, values in measured.numbers.items()})
    print(f"\n{claim.name}: {claim.claim}")
    for metric, near in found.items():
        ours, reference, number = measured.numbers[metric], claim.reference(metric), claim.numbers[metric]
        spread = "" if ours["std"] is None else f" +- {ours['std']:.2f}"
        what = f"{metric} {ours['mean']:.2f}{spread} over {len(seeds)} seed(s)"
        if near is None:
            print(f"  {what}; nothing to compare with.")
            continue
        kind = "published" if number.published is not None else "measured before"
        where = "within" if near else "OUTSIDE"
        print(f"  {what}; {kind} {reference:.2f}: {where} the tolerance of {number.tolerance:g}.")
    if extra:
        print(f"  The run was not the claim's: {shlex.join(extra)}.")
    if set(seeds) != set(claim.seeds):
        print(f"  The claim is over the seeds {', '.join(map(str, claim.seeds))}.")
    return all(near is not False for near in found.values())


def _seeds(text: str) -> tuple[int, ...]:
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not words or not all(word.isdigit() for word in words) or len(set(words)) < len(words):
        raise UsageError(f"`--seeds {text}` must be different whole numbers, such as `--seeds 0,1,2`.")
    return tuple(map(int, words))


def hardware() -> str:
    """The processor, and the GPUs that a run would use."""
    import torch

    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        name = found[1].strip() if found else name
    words = [f"{os.cpu_count()} cores {name}"]
    if torch.cuda.is_available():
        words += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(words)
