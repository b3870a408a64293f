"""The examples of other things than images with one label run as they are, and learn."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from lightning_cl.metrics import read_report

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "metric", "chance"),  # of an untrained model, or of one that says the same of all
    [
        ("regression", "MeanSquaredError", 1.0),
        ("multi_label", "MultilabelF1Score", 0.2),
        ("segmentation", "BinaryJaccardIndex", 0.25),
        ("detection", "MeanAveragePrecision", 0.1),
    ],
)
def test_an_example_learns_every_task(name: str, metric: str, chance: float, tmp_path: Path, monkeypatch: Any) -> None:
    if name == "detection":
        pytest.importorskip("pycocotools")
    monkeypatch.chdir(tmp_path)
    file = EXAMPLES / f"{name}.py"
    evaluation = runpy.run_path(str(file))["main"](accelerator="cpu", **QUIET)
    report, matrix = read_report(tmp_path), evaluation.matrix()
    assert (report.metric, report.higher_is_better) == (metric, evaluation.higher_is_better)
    learned = matrix.diagonal()
    assert (learned > chance).all() if report.higher_is_better else (learned < chance).all()
    lost = [report.metrics[f"{metric}/{name}"] for name in ("forgetting", "backward_transfer")]
    assert lost[0] is not None
    assert lost[0] > 0 > lost[1]  # the words of the report hold whatever the direction is
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.filterwarnings("ignore")
def test_new_classes_of_boxes_beside_a_method_on_weights(tmp_path: Path, monkeypatch: Any) -> None:
    """Half of the classes in each task; DuET, which looks at no label, merges what a torchvision detector learns."""
    pytest.importorskip("pycocotools")
    monkeypatch.chdir(tmp_path)
    file = EXAMPLES / "new_objects.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
    example, small = runpy.run_path(str(file)), {"images": 40, "epochs": 1, "accelerator": "cpu", **QUIET}
    matrix = example["main"](example["DuET"](), **small).matrix()
    report = read_report(tmp_path)
    assert (report.metric, list(report.methods), len(report.task_classes[1])) == ("MeanAveragePrecision", ["DuET"], 5)
    assert matrix.isnan().tolist() == [[False, True], [False, False]]
