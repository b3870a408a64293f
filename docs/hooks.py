"""Fills in what pages say of the code: ``<!-- generated: what -->`` becomes text when the site is built."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

#: Every module whose public names are in the reference.
PUBLIC = (
    "lightning_cl",
    "lightning_cl.callbacks",
    "lightning_cl.datamodules",
    "lightning_cl.metrics",
    "lightning_cl.metrics.functional",
    "lightning_cl.mixins",
    "lightning_cl.models",
    "lightning_cl.nn",
    "lightning_cl.nn.adapters",
    "lightning_cl.nn.heads",
    "lightning_cl.nn.replay",
    "lightning_cl.reports",
    "lightning_cl.targets",
    "lightning_cl.training",
)


def public_names(module: str) -> list[str]:
    """What a module exports, documented there and nowhere else."""
    names: list[str] = importlib.import_module(module).__all__
    return [name for name in names if not name.startswith("__")]


def reference(module: str) -> str:
    """A mkdocstrings block for every public name of a module."""
    return "\n\n".join(f"::: {module}.{name}" for name in public_names(module))


def definitions(of: str) -> str:
    """A table of the metrics of a report: ``matrix``, ``few_shot`` or ``anytime``."""
    from lightning_cl.metrics.functional import summary
    from lightning_cl.reports import anytime_curve

    tables: dict[str, Mapping[str, str]] = {
        "matrix": summary.DEFINITIONS,
        "few_shot": summary.FEW_SHOT_DEFINITIONS,
        "anytime": anytime_curve.DEFINITIONS,
    }
    return table(("Name", "What it is"), [(f"`{name}`", text) for name, text in tables[of].items()])


def checks(_: str) -> str:
    """A table of the checks on a protocol card."""
    from lightning_cl.reports.protocol import CHECKS

    return table(("Check", "What it says when it passes"), list(CHECKS.items()))


def listing(kind: str) -> str:
    """What ``lightning-cl list`` shows of a kind."""
    from lightning_cl.cli.catalogue import entries

    return table(("Name", ""), [(f"`{entry.name}`", entry.summary) for entry in entries(kind)])


def usage(_: str) -> str:
    """What ``lightning-cl --help`` prints."""
    from lightning_cl.cli.options import build

    return f"```text\n{build().format_help()}```"


def table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(head), "--- | ---", *lines))


GENERATORS = {"reference": reference, "definitions": definitions, "checks": checks, "list": listing, "usage": usage}


def fill(markdown: str) -> str:
    """The page with every ``<!-- generated: what argument -->`` replaced."""

    def generate(match: re.Match[str]) -> str:
        return GENERATORS[match[1]](match[2].strip())

    return re.sub(r"<!-- generated: (\w+)([^>]*?) -->", generate, markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return fill(markdown)
