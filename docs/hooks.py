"""Fills in what pages say of the code: ``<!-- generated: what -->`` becomes text when the site is built."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Every module whose public names are in the reference.
PUBLIC = (
    "lightning_cl",
    "lightning_cl.callbacks",
    "lightning_cl.datamodules",
    "lightning_cl.lifelong",
    "lightning_cl.metrics",
    "lightning_cl.metrics.functional",
    "lightning_cl.mixins",
    "lightning_cl.models",
    "lightning_cl.nn",
    "lightning_cl.nn.adapters",
    "lightning_cl.nn.attention",
    "lightning_cl.nn.heads",
    "lightning_cl.nn.replay",
    "lightning_cl.reports",
    "lightning_cl.class_embeddings",
    "lightning_cl.training",
)


#: Title of the methods that have no folder of their own.
BASELINE = "Reference: plain training"


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
        "forget": summary.FORGET_DEFINITIONS,
        "adaptation": summary.ADAPTATION_DEFINITIONS,
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


def attention(_: str) -> str:
    """A table of the networks that prompts can be put into."""
    from lightning_cl.nn.attention import attention_families

    rows = []
    for family in sorted(attention_families(), key=lambda family: family.name):
        about = (type(family).__doc__ or "").split("\n\n")[0].replace("``", "`")
        rows.append((family.name, "prefixes, tokens" if family.takes_tokens else "prefixes", " ".join(about.split())))
    return table(("Family", "Takes", "How"), rows)


def families(_: str = "") -> str:
    """A table of the methods, one row for each folder of callbacks, each name with a link to its first paper."""
    import lightning_cl.callbacks as exported

    rows: dict[str, list[str]] = {}
    networks: dict[str, dict[str, list[str]]] = {}
    for name in exported.__all__:
        method = getattr(exported, name)
        if not (isinstance(method, type) and issubclass(method, exported.ContinualMethod)):
            continue
        if isinstance(method.state_key, str):  # a base class states none
            package, _, _ = method.__module__.removeprefix("lightning_cl.callbacks.").rpartition(".")
            known = (
                (importlib.import_module(f"lightning_cl.callbacks.{package}").__doc__ or "") if package else BASELINE
            )
            paper = re.search(r"arXiv:(\d{4}\.\d{4,5})", method.__doc__ or "")
            shown = f"[`{name}`](https://arxiv.org/abs/{paper[1]})" if paper else f"`{name}`"
            title = known.split("\n")[0].rstrip(".")
            rows.setdefault(title, []).append(shown)
            networks.setdefault(title, {}).setdefault(method.backbones(), []).append(f"`{name}`")
    shown_rows = [(title, ", ".join(rows[title]), works_on(networks[title])) for title in sorted(rows)]
    return table(("Methods that ...", "Callbacks", "Work on"), shown_rows)


def works_on(networks: Mapping[str, list[str]]) -> str:
    """One text where all methods of a row work on the same networks; else each with the names of its methods."""
    if len(networks) == 1:
        return next(iter(networks))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in networks.items())


def usage(_: str) -> str:
    """What ``lightning-cl --help`` prints."""
    from lightning_cl.cli.options import build

    return f"```text\n{build().format_help()}```"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(head), " | ".join("---" for _ in head), *lines))


GENERATORS = {
    "attention": attention,
    "families": families,
    "reference": reference,
    "definitions": definitions,
    "checks": checks,
    "list": listing,
    "usage": usage,
}


def fill(markdown: str) -> str:
    """The page with every ``<!-- generated: what argument -->`` replaced."""

    def generate(match: re.Match[str]) -> str:
        return GENERATORS[match[1]](match[2].strip())

    return re.sub(r"<!-- generated: (\w+)([^>]*?) -->", generate, markdown)


def fill_readme(markdown: str) -> str:
    """The README with its table of methods as the package has them."""
    return re.sub(
        r"(<!-- methods -->\n).*?(\n<!-- end -->)",
        lambda match: match[1] + families() + match[2],
        markdown,
        flags=re.DOTALL,
    )


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return fill(markdown)


if __name__ == "__main__":  # after a method was added: python docs/hooks.py
    from pathlib import Path

    page = Path(__file__).parent.parent / "README.md"
    page.write_text(fill_readme(page.read_text("utf-8")), "utf-8")
