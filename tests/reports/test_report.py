"""A report is complete, strict JSON, reads back as it was, and never replaces another in silence."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cl.metrics import ContinualReport, read_report
from lightning_cl.reports.files import jsonable, to_json
from lightning_cl.reports.report import installed_versions

NAN = float("nan")
ACC = torch.tensor([[0.80, NAN, NAN], [0.90, 0.80, NAN], [0.60, 0.84, 0.85]], dtype=torch.float64)


def full_report(**changes) -> ContinualReport:
    values = {
        "class_il": ACC,
        "task_il": ACC.clamp(min=0.7),
        "baseline": torch.tensor([0.1, 0.08, 0.06], dtype=torch.float64),
        "sizes": torch.tensor([60, 20, 20]),
        "evaluated": torch.tensor([[60, 0, 0], [60, 19, 0], [60, 20, 20]]),
        "task_classes": [[0, 3], [1], [2]],
        "class_names": ["cat", "dog", "Äpfel", 'a "quoted" bird'],
        "samples_seen": [100, 50, 50],
        "trainable_parameters": 10,
        "total_parameters": 1000,
        "stream_hash": "abc123",
        "methods": {"CODAPrompt": {"pool_size": 100, "layers": [0, 1], "clip": None}, "Replay": {"size": 5}},
        "notes": ["predictions depend on the batch"],
    }
    return ContinualReport(**{**values, **changes})


def strict(path: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def assert_same(a: ContinualReport, b: ContinualReport) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(other, value, rtol=0, atol=0, equal_nan=True)
        else:
            assert other == value, name


def test_reads_back_as_it_was(tmp_path):
    report = full_report()
    path = report.write(tmp_path / "new" / "folder")
    assert_same(report, read_report(path))
    assert_same(report, read_report(path.parent))
    least = ContinualReport(class_il=torch.tensor([[NAN]], dtype=torch.float64))
    assert_same(least, read_report(least.write(tmp_path)))


def test_json_is_strict_and_says_what_a_number_is(tmp_path):
    content = strict(full_report().write(tmp_path))
    assert content["class_il"][0] == [0.8, None, None]
    assert content["metrics"]["class_il/forgetting"] == pytest.approx(0.13)
    assert content["definitions"].keys() == {name.split("/")[1] for name in content["metrics"]}
    assert content["partial_stages"] == [1]
    assert content["class_names"][2] == "Äpfel"
    assert content["format_version"] == 1


def test_csv_holds_the_matrices_exactly(tmp_path):
    full_report().write(tmp_path)
    with (tmp_path / "accuracy_matrix.csv").open() as stream:
        header, *rows = csv.reader(stream)
    assert header == ["after_task", "task_0", "task_1", "task_2"]
    assert rows[1] == ["1", "0.9", "0.8", ""]
    with (tmp_path / "accuracy_matrix_task_il.csv").open() as stream:
        assert list(csv.reader(stream))[3][1] == "0.7"


def test_the_headline_is_the_matrix_of_the_label_space(tmp_path):
    report = full_report(label_space="task_il")
    assert report.matrix is report.task_il
    report.write(tmp_path)
    assert "accuracy_matrix_class_il.csv" in names(tmp_path)
    assert "0.6" in (tmp_path / "accuracy_matrix_class_il.csv").read_text()
    assert ContinualReport(task_il=ACC).matrix_name == "task_il"
    assert full_report(label_space="domain_il").matrix_name == "class_il"


def test_older_reports_are_kept_with_a_number(tmp_path):
    for note in ("first", "second", "third"):
        full_report(notes=[note]).write(tmp_path)
    order = ["continual_report-1.json", "continual_report-2.json", "continual_report.json"]
    assert [read_report(tmp_path / name).notes for name in order] == [["first"], ["second"], ["third"]]
    stems = ("accuracy_curves{}.png", "accuracy_matrix{}.csv", "accuracy_matrix{}.png", "accuracy_matrix_task_il{}.csv")
    expected = [name.format(n) for name in (*stems, "continual_report{}.json") for n in ("", "-1", "-2")]
    assert names(tmp_path) == sorted(expected)  # and no temporary file


def test_a_deleted_number_is_not_used_again_and_other_files_stay(tmp_path):
    (tmp_path / "metrics.csv").write_text("mine")
    for note in ("first", "second"):
        full_report(notes=[note]).write(tmp_path)
    os.rename(tmp_path / "continual_report-1.json", tmp_path / "continual_report-7.json")
    full_report().write(tmp_path)
    assert read_report(tmp_path / "continual_report-8.json").notes == ["second"]
    assert (tmp_path / "metrics.csv").read_text() == "mine"


def test_a_report_may_grow_during_a_run(tmp_path):
    full_report(notes=["early"]).write(tmp_path)
    full_report(task_il=None, notes=["late"]).write(tmp_path, keep_previous=False)
    assert read_report(tmp_path).notes == ["late"]
    assert names(tmp_path) == [
        "accuracy_curves.png",
        "accuracy_matrix.csv",
        "accuracy_matrix.png",
        "continual_report.json",
    ]


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    full_report(notes=["old"]).write(tmp_path)
    before = names(tmp_path)

    def no_space(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("lightning_cl.reports.report._write_text", lambda path, text: no_space())
    with pytest.raises(OSError, match="No space"):
        full_report(notes=["new"]).write(tmp_path)
    assert names(tmp_path) == before
    assert read_report(tmp_path).notes == ["old"]


def test_figures_are_pictures(tmp_path):
    full_report().write(tmp_path)
    for name in ("accuracy_matrix.png", "accuracy_curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_numbers_alone(tmp_path):
    for folder, pictures in (("whole", True), ("numbers", False)):
        full_report().write(tmp_path / folder, pictures=pictures)
    kept = [name for name in names(tmp_path / "whole") if not name.endswith(".png")]
    assert names(tmp_path / "numbers") == kept
    for name in kept:
        assert (tmp_path / "numbers" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_partial_stages_need_something_counted():
    assert full_report(evaluated=torch.tensor([[60, 0, 0], [60, 20, 0], [0, 0, 0]])).partial_stages == []
    assert full_report(evaluated=torch.tensor([[59, 0, 0], [60, 20, 20], [60, 0, 20]])).partial_stages == [0, 2]
    assert full_report(evaluated=None).partial_stages == []


def test_versions():
    versions = installed_versions()
    assert set(versions) == {"python", "lightning_cl", "torch", "lightning", "timm"}
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_what_is_no_json_becomes_something_a_reader_understands():
    config = {
        "lr": NAN,
        "clip": float("inf"),
        1: (True, None),
        "path": Path("a"),
        "dtype": torch.float16,
        "module": torch.nn.ReLU(),
        "kind": torch.nn.ReLU,
        "set": {2, 1},
        "tensor": torch.tensor([1.5, NAN]),
    }
    assert jsonable(config) == {
        "lr": None,
        "clip": "Infinity",
        "1": [True, None],
        "path": "a",
        "dtype": "torch.float16",
        "module": "torch.nn.modules.activation.ReLU",
        "kind": "torch.nn.modules.activation.ReLU",
        "set": [1, 2],
        "tensor": [1.5, None],
    }


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_laying_out_rows_on_one_line_changes_no_value(value):
    assert json.loads(to_json(value)) == value


@pytest.mark.parametrize("text", ["[\n  1,\n  2\n]", "[ 1,  2 ]", "[  null ]"])
def test_a_text_that_looks_like_a_row_is_left_alone(text):
    assert json.loads(to_json({"note": text, "row": [1, 2]})) == {"note": text, "row": [1, 2]}


def test_wrong_input(tmp_path):
    with pytest.raises(ValueError, match="needs an accuracy matrix"):
        ContinualReport()
    with pytest.raises(ValueError, match="`label_space` is 'cil'"):
        full_report(label_space="cil")
    with pytest.raises(FileNotFoundError):
        read_report(tmp_path)
    other = tmp_path / "continual_report.json"
    for content in ("[]", "{}"):
        other.write_text(content)
        with pytest.raises(ValueError, match="not a continual report"):
            read_report(other)
    other.write_text('{"format_version": 2}')
    with pytest.raises(ValueError, match="update lightning_cl"):
        read_report(other)
