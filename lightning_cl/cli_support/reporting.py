"""``lightning-cl report``: the reports of one or several runs as one HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_cl.cli_support.configs import UsageError

REPORT_HELP = """\
usage: lightning-cl report DIR... [--output FILE]

One HTML page of a finished (or interrupted) run: accuracy matrix, curves, metrics with their definitions,
protocol card, stream, methods and versions. Several folders are compared side by side. The page needs no network and
no other file.

  DIR                  the folder of a run, or its continual_report.json; of a folder with version_* the newest
  --output FILE        where to write (default: report.html in DIR; of several, comparison.html here)
"""
FILE_NAME = "continual_report.json"


def report(words: Sequence[str]) -> int:
    """Write the page and say where; the exit code.

    Args:
        words: The command line after ``report``.

    Raises:
        UsageError: If there is no folder, one holds no report, or the page cannot be written.
    """
    folders, output = parse(words)
    files = [find_report(Path(folder)) for folder in folders]
    from lightning_cl.metrics.html import page, unique_names  # imports torch and matplotlib
    from lightning_cl.metrics.report import read

    reports = []
    for file in files:
        try:
            reports.append(read(file))
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{file} cannot be read as a report: {error}; give the folder of a run, or its {FILE_NAME}."
            ) from error
    target = Path(output) if output else files[0].parent / "report.html" if len(files) == 1 else Path("comparison.html")
    names = unique_names(shortest_names(files))
    configs = {
        name: file.with_name("config.yaml").read_text(encoding="utf-8")
        for name, file in zip(names, files, strict=True)
        if file.with_name("config.yaml").is_file()
    }
    try:
        text = page(dict(zip(names, reports, strict=True)), configs)
    except ValueError as error:
        raise UsageError(f"{error} Give fewer folders.") from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({error.strerror}); give another file with `--output`."
        ) from error
    print(f"Report: {target}")
    return 0


def parse(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Folders and the output.

    Raises:
        UsageError: If there is no folder, or an option that does not exist.
    """
    folders: list[str] = []
    output: str | None = None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--output="):
            output = word.partition("=")[2]
        elif word in ("--output", "-o"):
            if not rest:
                raise UsageError("`--output` needs the path of a file.")
            output = rest.pop(0)
        elif word.startswith("-"):
            raise UsageError(f"`report` has no option `{word}`; see `lightning-cl report --help`.")
        else:
            folders.append(word)
    if not folders:
        raise UsageError("`report` needs the folder of a run; see `lightning-cl report --help`.")
    return folders, output


def find_report(path: Path) -> Path:
    """The report's file: ``path`` itself, the one in it, or that of its newest ``version_*``.

    Raises:
        UsageError: If there is none; the message names reports further down.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(f"there is no folder {path}; give the folder that a run wrote.")
    versions = sorted(path.glob(f"version_*/{FILE_NAME}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in (path / FILE_NAME, *versions):
        if file.is_file():
            return file
    below = sorted(str(file.parent) for file in path.glob(f"*/**/{FILE_NAME}"))[:5]
    hint = f" There are reports in {', '.join(below)}." if below else ""
    raise UsageError(
        f"{path} holds no run: there is no {FILE_NAME}. Give the folder that a run with `ContinualEvaluation` wrote."
        + hint
    )


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
