"""List what a configuration may name, read from the package's own source text: no torch, so it answers at once."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cl.cli.configs import PACKAGE, RECIPES, UsageError, method_files

KINDS = ("recipes", "streams", "methods", "sources", "scenarios", "callbacks")
_TITLES = {
    "recipes": "complete runs, `lightning-cl fit NAME`",
    "streams": "to put a method on, `lightning-cl fit STREAM METHOD`",
    "methods": "callbacks, and their names in `lightning-cl fit STREAM METHOD`",
    "sources": "which images, `--data.source`",
    "scenarios": "how they arrive, `--data.scenario`",
    "callbacks": "what measures and saves, `--trainer.callbacks+`",
}
_BASES = {"sources": "Source", "scenarios": "Scenario"}  # all others are callbacks
_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`(~?)([\w.]+)`")
#: Who wrote of it, where and when: for the pages of the documentation, not for a list.
_CITATION = re.compile(r" \([^()]*\b(?:(?:19|20)\d\d\b|arXiv:)[^()]*\)")
#: Exported to be derived from.
FOR_AUTHORS = {"ContinualCallback", "ContinualMethod"}


class Entry(NamedTuple):
    """A name that configs may use, and one line about it."""

    name: str
    summary: str


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Print the entries of the kinds that were asked for, or of all."""
    from rich.text import Text

    kinds = [word for word in (options.target, *rest) if word] or KINDS
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UsageError(f"there is nothing called `{unknown[0]}` to list; choose from {', '.join(KINDS)}.")
    for kind in kinds:
        named = method_files() if kind == "methods" else {}
        found = [entry._replace(summary=_CITATION.sub("", entry.summary)) for entry in entries(kind)]
        rows = [(entry.name, *_also(named, entry.name), Text(entry.summary)) for entry in found]
        show(f"{kind}: {_TITLES[kind]}", rows)  # texts, since brackets are no markup
    return 0


def _also(named: Mapping[str, Sequence[str]], name: str) -> tuple[str, ...]:
    return (", ".join(named.get(name, ())),) if named else ()


def show(title: str, rows: Sequence[Sequence[Any]]) -> None:
    """Print a table whose last column may be wrapped."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for column in range(len(rows[0])):
        table.add_column(no_wrap=column < len(rows[0]) - 1, style="bold" if column == 0 else None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def entries(kind: str) -> list[Entry]:
    """Everything of one of the :data:`KINDS`, by name; callbacks are those that watch or save, and are no methods."""
    if kind in ("recipes", "streams"):
        paths = sorted((RECIPES / ("." if kind == "recipes" else kind)).glob("*.yaml"))
        heads = [path.read_text(encoding="utf-8").split("\n")[0].lstrip("# ").strip() for path in paths]
        return [Entry(path.stem, head.split(" Measured:")[0]) for path, head in zip(paths, heads, strict=True)]
    root = _BASES.get(kind, "ContinualMethod")
    folder = PACKAGE / ("datamodules" if kind in _BASES else "callbacks")
    classes = _classes(folder / kind if kind in _BASES else folder)
    public, derived = exported(folder / "__init__.py") - FOR_AUTHORS, kind != "callbacks"
    found = [node for name, node in classes.items() if name in public and _derives(name, root, classes) is derived]
    return sorted((_entry(node) for node in found if not is_base(node)), key=lambda entry: entry.name.lower())


@cache
def _classes(folder: Path) -> Mapping[str, ast.ClassDef]:
    """All classes in the files below a folder by name, read once in a process."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _entry(node: ast.ClassDef) -> Entry:
    """With the first line of the class's docstring, without markup."""
    summary = (ast.get_docstring(node) or "").split("\n")[0]
    return Entry(node.name, without_roles(summary).replace("`", ""))


def without_roles(text: str) -> str:
    """Sphinx roles as plain code: ``:class:`~a.b.C``` is ```C```."""
    return _ROLE.sub(lambda role: f"`{role[2].rpartition('.')[2] if role[1] else role[2]}`", text)


def is_base(node: ast.ClassDef) -> bool:
    """A class that is only there to be derived from: abstract, with a fact to state, or with a method to write."""
    if any(isinstance(base, ast.Name) and base.id == "ABC" for base in node.bases):
        return True
    fields = node.decorator_list  # of a dataclass
    if not fields and any(isinstance(item, ast.AnnAssign) and item.value is None for item in node.body):
        return True
    raised = (item.exc for item in ast.walk(node) if isinstance(item, ast.Raise))
    return any(isinstance(exc, ast.Name) and exc.id == "NotImplementedError" for exc in raised)


def exported(path: Path) -> set[str]:
    """Names in the ``__all__`` of a module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            names: list[str] = ast.literal_eval(node.value)
            return set(names)
    return set()


def _derives(name: str, root: str, classes: Mapping[str, ast.ClassDef]) -> bool:
    bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)] if name in classes else []
    return any(base == root or _derives(base, root, classes) for base in bases)
