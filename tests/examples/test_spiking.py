"""The example of a spiking network runs as it is, and HLOP keeps what the first task learned."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.mark.filterwarnings("ignore")
def test_a_spiking_network_keeps_its_first_task(tmp_path: Path, monkeypatch: Any) -> None:
    """0.90 and 0.96 among the two classes of the first two tasks after all five; 0.5 is chance, and plain training."""
    pytest.importorskip("snntorch")
    monkeypatch.chdir(tmp_path)
    file = Path(__file__).resolve().parents[2] / "examples" / "spiking.py"
    evaluation = runpy.run_path(str(file))["main"](accelerator="cpu", **QUIET)
    kept = evaluation.correct["task_il"][-1] / evaluation.total[-1]
    assert float(kept[:2].min()) > 0.75
    assert float(kept.min()) > 0.75
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
