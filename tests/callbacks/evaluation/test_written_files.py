"""What of a report is written: everything, numbers alone, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from datamodules.tiny_stream import TinyModule, make_stream, make_trainer

from lightning_cl.callbacks import AnytimeEvaluation, ContinualEvaluation, MultiLabelEvaluation


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("evaluation", [ContinualEvaluation, AnytimeEvaluation])
def test_numbers_without_pictures(evaluation: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for report in (True, "numbers", False):
        folder = tmp_path / str(report)
        make_trainer(folder, [evaluation(report=report)]).fit(TinyModule(), datamodule=make_stream())
        found[report] = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    assert "and pictures: " in capsys.readouterr().out
    assert "continual_report.json" in found["numbers"]
    assert "accuracy_matrix.png" in found[True]
    assert found["numbers"] == {name for name in found[True] if not name.endswith(".png")}
    assert not any("report" in name for name in found[False])


@pytest.mark.parametrize("evaluation", [ContinualEvaluation, AnytimeEvaluation, MultiLabelEvaluation])
def test_anything_else_is_refused(evaluation: Any) -> None:
    with pytest.raises(ValueError, match="`report` is 'number'; give True, False, or \"numbers\""):
        evaluation(report="number")
