"""Write the HTML page of one or several runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_cl.cli.configs import UsageError, write_output
from lightning_cl.reports.page import page, unique_names
from lightning_cl.reports.report import FILE_NAME, ContinualReport, read


def write(files: Sequence[Path], output: Path | None) -> Path:
    """Write the page of these reports, beside a single one or as ``comparison.html``, and return its path."""
    names = unique_names(shortest_names(files))
    reports = dict(zip(names, map(_read, files), strict=True))
    paths = {name: file.with_name("config.yaml") for name, file in zip(names, files, strict=True)}
    configs = {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}
    try:
        text = page(reports, configs)
    except ValueError as error:
        raise UsageError(f"{error} Give fewer folders.") from error
    of_one = files[0].parent / "report.html" if len(files) == 1 else Path("comparison.html")
    target = output or of_one
    write_output(target, text, "--output")
    return target


def _read(file: Path) -> ContinualReport:
    try:
        return read(file)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{file} cannot be read as a report: {error}; give the folder of a run, or its {FILE_NAME}."
        ) from error


def shortest_names(files: Sequence[Path]) -> list[str]:
    """The folders of the reports without what they share at the start and at the end; of one its last parts."""
    parts = [list(file.absolute().parent.parts) for file in files]
    if all(part == parts[0] for part in parts):
        of_comparison = re.fullmatch(r"seed\d+", parts[0][-2]) is not None  # its method stands before
        return ["/".join(parts[0][-3 if of_comparison else -2 :])] * len(parts)
    start = _shared(parts)
    end = _shared([part[start:][::-1] for part in parts])
    return ["/".join(part[start : len(part) - end]) or part[-1] for part in parts]


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many entries at the start are the same in all."""
    different = (n for n, entries in enumerate(zip(*parts, strict=False)) if len(set(entries)) > 1)
    return next(different, min(map(len, parts)))
