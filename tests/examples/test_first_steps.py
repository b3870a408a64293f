"""The notebook runs, and its stored outputs are what it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_steps.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_is_small_and_has_its_outputs() -> None:
    assert NOTEBOOK.stat().st_size < 150_000
    code = cells("code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))  # run once, from the top
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert not re.search(r"it/s|s/it|execution\":", json.dumps([cells("code"), outputs]))  # no times


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, 4)
    stored = [kinds(cell) for cell in notebook.cells]
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [kinds(cell) for cell in notebook.cells] == stored
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    accuracies = next(text for text in texts if "class means" in text)
    naive, prompts, means = (float(line.split()[-1]) for line in accuracies.splitlines()[-3:])
    assert naive < 0.3 < 0.6 < min(prompts, means)  # as the text around it says


def kinds(cell: dict[str, Any]) -> list[str]:
    """What a cell shows, without the numbers."""
    return sorted({kind for output in cell.get("outputs", []) for kind in output.get("data", {"stream": 0})})
