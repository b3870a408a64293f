"""Every test that docs/guarantees.md names exists, so the page cannot promise what nothing proves."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def named() -> list[tuple[str, str | None]]:
    """Files and tests in the order of the page; ``::name`` alone is of the file named before."""
    found, file = [], ""
    for path, test in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", PAGE):
        file = path or file
        if path or test:
            found.append((file, test or None))
    return found


@pytest.mark.parametrize(("file", "test"), named())
def test_a_named_test_exists(file, test):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert functions if test is None else test in functions


def test_every_guarantee_names_a_test_and_its_limits():
    sections = re.split(r"^## ", PAGE, flags=re.M)[1:]
    assert len(sections) >= 8
    for section in sections:
        assert "tests/" in section, section.splitlines()[0]
        assert "Limits:" in section or section.startswith("Safe state"), section.splitlines()[0]
