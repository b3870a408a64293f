"""The package's own imports: no circle, also where only types are asked for, and no arrow that points upward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from documented import ROOT

PACKAGE = ROOT / "lightning_cl"
#: From the ground up: what stands in a row may import from rows above it, and within itself.
LAYERS = (
    {"namespace", "sample_list"},
    {"versions", "leftovers", "checkpoint_file", "nn", "metrics", "class_embeddings"},
    {"reports", "datamodules"},
    {"training", "models"},
    {"mixins"},
    {"callbacks"},
    {"restoration", "export_method"},
    {"lifelong"},
    {"cli"},
    {"targets"},
    {"__main__"},
)


def imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    """At the level of the module, within ``if TYPE_CHECKING`` too; what a function imports waits until it is called."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_cl"):
            yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += [
                child for field in ("body", "orelse", "handlers", "finalbody") for child in getattr(node, field, [])
            ]


def import_graph(package: Path) -> dict[str, set[str]]:
    """Every module of the package with the modules that it imports."""
    files = {name_of(path, package): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        found = [
            (node.module or "", alias.name)
            for node in imports(ast.parse(path.read_text("utf-8")))
            for alias in node.names
        ]
        graph[name] = {f"{module}.{what}" if f"{module}.{what}" in files else module for module, what in found} - {name}
    return graph


def name_of(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upward(graph: dict[str, set[str]]) -> list[str]:
    rank = {part: height for height, layer in enumerate(LAYERS) for part in layer}
    arrows = [(a, b) for a, many in graph.items() for b in many if a.count(".") and b.count(".")]
    return [f"{a} -> {b}" for a, b in arrows if rank[b.split(".")[1]] > rank[a.split(".")[1]]]


def test_the_package_has_no_import_circle():
    assert circle(import_graph(PACKAGE)) == []


def test_no_import_points_upward():
    assert upward(import_graph(PACKAGE)) == []


@pytest.mark.parametrize(
    "text", ["from lightning_cl.b import x", "if TYPE_CHECKING:\n    from lightning_cl.b import x"]
)
def test_a_circle_is_found(text, tmp_path):
    package = tmp_path / "lightning_cl"
    package.mkdir()
    (package / "a.py").write_text(text)
    (package / "b.py").write_text("from lightning_cl import a")
    assert set(circle(import_graph(package))) == {"lightning_cl.a", "lightning_cl.b"}
    (package / "b.py").write_text("def later():\n    from lightning_cl import a")
    assert circle(import_graph(package)) == []


def test_an_upward_arrow_is_found():
    assert upward({"lightning_cl.nn.masks": {"lightning_cl.callbacks.base"}, "lightning_cl.cli": set()}) != []


def test_no_file_is_longer_than_300_lines():
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
