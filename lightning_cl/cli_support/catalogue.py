"""What ``lightning-cl list`` shows, read from the package's own source text: no torch, so it answers at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
RECIPES = PACKAGE / "recipes"
KINDS = ("methods", "sources", "scenarios", "recipes", "callbacks")
_FOLDERS = {
    "methods": ("callbacks", "ContinualMethod", "callbacks"),
    "sources": ("datamodules/sources", "Source", "datamodules"),
    "scenarios": ("datamodules/scenarios", "Scenario", "datamodules"),
    "callbacks": ("callbacks", "ContinualMethod", "callbacks"),  # those that are none
}


#: Exported to be derived from.
FOR_AUTHORS = {"ContinualCallback", "ContinualMethod"}


@dataclass(frozen=True)
class Entry:
    """A name that configs may use, and one line about it."""

    name: str
    summary: str


def entries(kind: str) -> list[Entry]:
    """Everything of one of the :data:`KINDS`, by name; callbacks are those that watch or save, and are no methods."""
    if kind == "recipes":
        paths = [path for folder in (".", "streams", "methods") for path in sorted((RECIPES / folder).glob("*.yaml"))]
        return [Entry(path.stem, header(path.read_text(encoding="utf-8"))) for path in paths]
    folder, root, exporter = _FOLDERS[kind]
    classes = {node.name: node for node in _classes(PACKAGE / folder)}
    public, derived = exported(PACKAGE / exporter / "__init__.py") - FOR_AUTHORS, kind != "callbacks"
    found = [node for name, node in classes.items() if name in public and _derives(name, root, classes) is derived]
    return sorted((Entry(n.name, summary(n)) for n in found if not is_base(n)), key=lambda entry: entry.name.lower())


def header(text: str) -> str:
    """First comment line of a recipe, without the measured numbers."""
    first = text.splitlines()[0].lstrip("# ").strip() if text.strip() else ""
    return first.split(" Measured:")[0]


def summary(node: ast.ClassDef) -> str:
    """First line of a class's docstring, without markup."""
    return (ast.get_docstring(node) or "").split("\n")[0].replace("``", "").replace(":class:", "")


def is_base(node: ast.ClassDef) -> bool:
    """A class that is only there to be derived from: abstract, with a fact to state, or with a method to write."""
    if any(isinstance(base, ast.Name) and base.id == "ABC" for base in node.bases):
        return True
    if any(isinstance(item, ast.AnnAssign) and item.value is None for item in node.body):
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


def _classes(folder: Path) -> Iterator[ast.ClassDef]:
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield node


def _derives(name: str, root: str, classes: dict[str, ast.ClassDef]) -> bool:
    bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)] if name in classes else []
    return any(base == root or _derives(base, root, classes) for base in bases)
