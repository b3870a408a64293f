"""Enter what the benchmarks left in ``benchmarks/results/`` into the ledger, as mean and spread over seeds.

    python benchmarks/enter.py && lightning-cl reproduce --markdown > docs/ledger.md

A claim that a benchmark measures is named like its results, ``<claim>_seed<seed>/``; those of ``real_images.py`` have
its name in front. ``--hardware`` says in words where it ran, and is kept from the entry if it is not given.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
from pathlib import Path

from lightning_cl import __version__
from lightning_cl.cli.ledger import LEDGER, Claim, Measurement, claim_names, read_claim, summary
from lightning_cl.metrics import read_report

RESULTS = Path(__file__).parent / "results"


def runs(claim: Claim, results: Path = RESULTS) -> dict[int, Path]:
    """Seed to the folder of its run."""
    name = claim.name.removeprefix("real_images_")
    folders = [path for path in results.glob(f"{name}_seed*") if re.fullmatch(rf"{re.escape(name)}_seed\d+", path.name)]
    return {int(path.name.rsplit("_seed", 1)[1]): path for path in sorted(folders)}


def values(claim: Claim, folder: Path) -> dict[str, float]:
    """Metric to percent; or perplexities at the end of a run; or what a benchmark computed of its runs itself."""
    if (own := folder / "percent.json").exists():
        found: dict[str, float] = json.loads(own.read_text())
        return found
    if claim.unit == "perplexity":
        last = json.loads((folder / "perplexity.json").read_text())[-1]
        return {f"perplexity/{name}": value for name, value in last.items()}
    report = read_report(folder)
    known = {**report.metrics, **{f"anytime/{k}": v for k, v in (report.anytime or {}).get("metrics", {}).items()}}
    return {metric: 100.0 * known[metric] for metric in claim.numbers}


def measurement(claim: Claim, folders: dict[int, Path], hardware: str) -> Measurement:
    """Of all runs of a claim."""
    found = [values(claim, folder) for folder in folders.values()]
    minutes = [float((folder / "minutes.txt").read_text().split()[0]) for folder in folders.values()]
    first = next(iter(folders.values()))
    reported = (first / "continual_report.json").exists()
    version = read_report(first).versions["lightning_cl"] if reported else __version__
    numbers = {metric: summary([one[metric] for one in found]) for metric in claim.numbers}
    return Measurement(tuple(folders), numbers, version, hardware, round(statistics.fmean(minutes), 1), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware")
    given = parser.parse_args()
    for claim in map(read_claim, claim_names()):
        folders = runs(claim)
        hardware = given.hardware or (claim.measured.hardware if claim.measured else None)
        if claim.recipe or not folders:
            continue
        if hardware is None:
            parser.error(f"`{claim.name}` has not been measured before; say where with --hardware")
        updated = dataclasses.replace(
            claim, measured=measurement(claim, folders, hardware), seeds=tuple(folders)
        ).to_yaml()
        path = LEDGER / f"{claim.name}.yaml"
        if updated != path.read_text(encoding="utf-8"):
            path.write_text(updated, encoding="utf-8")
            print(f"{claim.name}: seeds {', '.join(map(str, folders))}")


if __name__ == "__main__":
    main()
