"""The drop-in example runs as it is and learns."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from lightning_cl.metrics import read_report

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "drop_in.py"


def test_drop_in_example_beats_chance_without_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    accuracy = read_report(tmp_path).metrics["class_il/average_accuracy"]
    assert accuracy is not None
    assert accuracy > 0.5  # random convolutions and class means; chance is 0.1
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
