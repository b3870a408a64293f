"""A report whose fields are of other types than it was written with is one sentence."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_cl.reports.report import ContinualReport, read

WRONG = {
    "class_il": ["a", [[1], [1, 2]], {"a": 1}, [0.5, 0.5], [["x", "y"], ["z", "w"]], 3],
    "sizes": [[1.5, "x"], [[1, 2]], "abc", [10**30, 1]],
    "label_space": [3, None, "other"],
    "few_shot": ["yes", 1],
    "metrics": [[1], {"a": "high"}, {"a": [1]}, "x"],
    "task_classes": [{"0": [1]}, [1, 2], [["a"]]],
    "class_names": [[1, 2], "ab", {"a": 1}],
    "samples_seen": [["x"], 3],
    "trainable_parameters": ["many", [1], 1.5],
    "stream_hash": [7],
    "methods": [["FineTuning"], {"FineTuning": 3}, "x"],
    "versions": [["torch"], {"torch": 2}],
    "notes": ["one", [1]],
    "anytime": [[1], "x"],
    "protocol": [[1], "x"],
}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    report = ContinualReport(class_il=torch.tensor([[1.0, float("nan")], [0.5, 0.75]]), sizes=torch.tensor([4, 4]))
    folder = tmp_path_factory.mktemp("report")
    report.write(folder)
    return json.loads((folder / "continual_report.json").read_text())


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_another_type_is_one_sentence(tmp_path, content, name, value):
    path = tmp_path / "edited.json"
    path.write_text(json.dumps({**content, name: value}))
    with pytest.raises(ValueError, match=f"`{name}`"):
        read(path)


def test_what_was_written_is_read(tmp_path, content):
    path = tmp_path / "same.json"
    path.write_text(json.dumps({**content, "of_a_newer_version": 1}))
    assert torch.equal(read(path).sizes, torch.tensor([4, 4]))


def test_deep_nesting(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text('{"format_version": 1, "notes": ' + "[" * 200_000 + "]" * 200_000 + "}")
    with pytest.raises(ValueError, match="nested too deeply"):
        read(path)
