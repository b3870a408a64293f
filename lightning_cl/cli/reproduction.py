"""Run a claim of the ledger over its seeds and compare: ``lightning-cl reproduce``."""

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
from typing import Any

from lightning_cl import __version__
from lightning_cl.cli import ledger
from lightning_cl.cli.catalogue import show
from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.ledger import Claim, Measurement, read_claim


def main(given: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Run a claim, or show all: 0 within tolerance, 1 outside."""
    folder: Path = given.ledger or ledger.LEDGER
    if not folder.is_dir():
        raise UsageError(f"`--ledger {folder}` is not a folder; give one that holds a YAML file for each claim.")
    if given.list or given.markdown:
        claims = [read_claim(name, folder) for name in ledger.claim_names(folder)]
        if given.markdown:
            print(ledger.markdown(claims), end="")
        else:
            show("ledger", [(claim.name, ledger.status(claim), claim.claim) for claim in claims])
        return 0
    if not given.target:
        raise UsageError("`reproduce` needs the name of a claim; `lightning-cl reproduce --list` shows all.")
    claim = read_claim(given.target, folder)
    if given.update and rest:
        raise UsageError(
            f"`--update` was given with {shlex.join(rest)}, which changes the run, so that it is not the claim's; "
            "leave one of them out."
        )
    seeds = claim.seeds if given.seeds is None else _seeds(given.seeds)
    measured = measure(claim, seeds, rest, given.runs / claim.name, debug)
    if isinstance(measured, int):
        return measured
    updated = dataclasses.replace(claim, measured=measured)
    within = _tell(claim, measured, rest)
    print("\n" + updated.to_yaml(), end="")
    if given.update:
        path = folder / f"{claim.name}.yaml"
        path.write_text(updated.to_yaml(), encoding="utf-8")
        print(f"Written to {path}.")
    return 0 if within else 1


def measure(claim: Claim, seeds: Sequence[int], extra: Sequence[str], folder: Path, debug: bool) -> Measurement | int:
    """Run the claim's recipe once for each seed, in ``folder/seed_<seed>``; the exit code of a run that was stopped."""
    if not claim.recipe:
        raise UsageError(
            f"`{claim.name}` was measured by a benchmark of the repository, not by a recipe: {claim.command}"
        )
    from lightning_cl.cli.command import run  # imports torch
    from lightning_cl.reports.compared_runs import values_of

    values: dict[str, list[float]] = {metric: [] for metric in claim.numbers}
    costs = []
    began = time.monotonic()
    for seed in seeds:
        here, before = folder / f"seed_{seed}", set((folder / f"seed_{seed}").glob("version_*"))
        words = ["fit", *(word for name in claim.recipe for word in ("--config", name)), *claim.overrides]
        logger = "--trainer.logger.init_args."
        words += ["--seed_everything", str(seed), "--data.seed", str(seed)]
        words += [f"{logger}save_dir={folder}", f"{logger}name={here.name}", *extra]
        print(f"{claim.name}, seed {seed}: lightning-cl {shlex.join(words)}", flush=True)
        code = run(words, debug)
        if code:
            return code
        reached = _report(set(here.glob("version_*")) - before, here)
        costs.append(values_of(reached))
        for metric in values:
            values[metric].append(_value(reached, metric, claim))
    minutes = round((time.monotonic() - began) / 60 / len(seeds), 2)
    numbers = {metric: ledger.summary(found) for metric, found in values.items()}
    known = ledger.recipe_hash(claim.recipe, claim.overrides)
    return Measurement(tuple(seeds), numbers, __version__, hardware(), minutes, known, ledger.mean_costs(costs))


def _report(new: set[Path], folder: Path) -> Any:
    from lightning_cl.reports.report import FILE_NAME, read

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


def _tell(claim: Claim, measured: Measurement, extra: Sequence[str]) -> bool:
    found = ledger.verdict(claim, {metric: values["mean"] for metric, values in measured.numbers.items()})
    print(f"\n{claim.name}: {claim.claim}")
    for metric, near in found.items():
        ours, reference, number = measured.numbers[metric], claim.reference(metric), claim.numbers[metric]
        spread = "" if ours["std"] is None else f" +- {ours['std']:.2f}"
        what = f"{metric} {ours['mean']:.2f}{spread} over {len(measured.seeds)} seed(s)"
        if near is None:
            print(f"  {what}; nothing to compare with.")
            continue
        kind = "published" if number.published is not None else "measured before"
        where = "within" if near else "OUTSIDE"
        print(f"  {what}; {kind} {reference:.2f}: {where} the tolerance of {number.tolerance:g}.")
    if extra:
        print(f"  The run was not the claim's: {shlex.join(extra)}.")
    if set(measured.seeds) != set(claim.seeds):
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
