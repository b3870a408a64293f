"""Find the reports of runs and write their page: ``lightning-cl report``; torch is imported once all are found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_cl.cli.configs import UsageError
from lightning_cl.leftovers import REPORT_FILE


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Write the page and say where."""
    if not options.target:
        raise UsageError("`report` needs the folder of a run; see `lightning-cl report --help`.")
    files = [find_report(Path(folder)) for folder in (options.target, *rest)]
    from lightning_cl.cli.report_page import write

    print(f"Report: {write(files, options.output)}")
    return 0


def find_report(path: Path) -> Path:
    """The report's file: ``path`` itself, the one in it, or that of its newest ``version_*``."""
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(f"there is no folder {path}; give the folder that a run wrote.")
    versions = sorted(path.glob(f"version_*/{REPORT_FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in (path / REPORT_FILE, *versions):
        if file.is_file():
            return file
    below = sorted(str(file.parent) for file in path.glob(f"*/**/{REPORT_FILE}"))[:5]
    hint = f" There are reports in {', '.join(below)}." if below else ""
    raise UsageError(
        f"{path} holds no run: there is no {REPORT_FILE}. Give the folder that a run with `ContinualEvaluation` wrote."
        + hint
    )
