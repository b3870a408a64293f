"""`lightning-cl report`: one page that needs nothing but itself, looked at in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_cl.cli import main
from lightning_cl.cli.report_page import shortest_names
from lightning_cl.metrics import ContinualReport
from lightning_cl.reports.page import page, unique_names
from lightning_cl.reports.protocol import Check, ProtocolCard

NAN = float("nan")
ACC = torch.tensor([[0.80, NAN, NAN], [0.90, 0.805, NAN], [0.60, 0.84, 0.85]], dtype=torch.float64)


def make_report(**changes: Any) -> ContinualReport:
    checks = (
        Check("batch size", "pass", "8 samples one by one"),
        Check("labels", "fail", "", "the labels decide", {}, (0,), (0,)),
    )
    values: dict[str, Any] = {
        "class_il": ACC,
        "task_il": ACC.clamp(max=0.95) + 0.05,
        "sizes": torch.tensor([20, 20, 20]),
        "task_classes": [[0, 1], [2, 3], [4, 5]],
        "class_names": ["cat", "<b>dog</b>", "cow & calf", "d", "e", "f"],
        "samples_seen": [100, 100, 100],
        "stream_hash": "ab" * 32,
        "methods": {"EWC<u>": {"strength": 400.0, "note": "<script>alert(1)</script>"}},
        "notes": ['a note with "quotes" & <tags>'],
        "protocol": ProtocolCard(checks).to_dict(),
    }
    return ContinualReport(**{**values, **changes})


def anytime() -> dict[str, Any]:
    curve = {
        "samples_seen": [50, 100, 150],
        "periodic": [True, True, True],
        "accuracy": [0.5, None, 0.25],
        "exposed_classes": [2, 2, 4],
    }
    return {
        "curve": curve, "task_accuracy": [[0.5], [None], [0.2]], "task_ends": [100, 200, 300],
        "metrics": {"a_auc": 0.375, "windowed_forgetting_10": 0.125},
        "definitions": {"a_auc": "mean of the periodic ones", "windowed_forgetting": "largest drop in a window"},
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_report(anytime=anytime()).write(tmp_path / "runs" / "one").parent


class Page(HTMLParser):
    """Text by cell, and every address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.rows, self.addresses, self.tags = list[str](), list[list[str]](), list[str](), list[str]()
        self.kinds: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag == "table":
            self.kinds.append(dict(attrs).get("class") or "")
        if tag == "tr":
            self.rows.append([])
            self.kind = self.kinds[-1]
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if any(tag in ("td", "th") for tag in self.open):
            self.rows[-1][-1] += data


def test_the_page_needs_nothing_but_itself(run):
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert len(parsed.addresses) == 2  # accuracy curves and the curve inside the run
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.addresses)
    assert not re.search(r"@import|url\(|fetch\(|https?://(?!www\.w3\.org)", text)
    assert not {"link", "iframe", "object", "form"} & set(parsed.tags)


def test_the_matrix_is_a_table_with_values(run):
    parsed = Page(page({"one": make_report()}))
    start = parsed.rows.index(["after", "0", "1", "2", "mean"])
    assert parsed.rows[start + 1 : start + 4] == [
        ["0", "80.0", "", "", "80.0"],
        ["1", "90.0", "80.5", "", "85.2"],
        ["2", "60.0", "84.0", "85.0", "76.3"],
    ]


def test_metrics_have_values_and_definitions_and_the_protocol_its_verdict():
    text = page({"one": make_report(anytime=anytime())})
    rows = Page(text).rows
    assert ["class-IL: average accuracy", "76.3"] in [row[:2] for row in rows]
    assert ["any time: A_AUC", "37.5", "mean of the periodic ones"] in rows
    assert ["any time: windowed forgetting 10", "12.5", "largest drop in a window"] in rows
    assert ["labels", "✗ fail"] in [row[:2] for row in rows]
    assert "Protocol: 1 violated" in text
    assert "ab" * 32 in text
    assert "lightning_cl" in text  # versions


def test_what_comes_from_a_run_is_text_and_never_markup():
    text = page({"<i>name</i>": make_report()})
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<b>dog" not in text
    assert "<i>name" not in text
    assert "EWC&lt;u&gt;" in text
    assert "<u>" not in text
    assert "a note with &quot;quotes&quot; &amp; &lt;tags&gt;" in text


def test_tasks_without_test_samples_and_partial_evaluations_are_said():
    report = make_report(sizes=torch.tensor([20, 0, 20]), evaluated=torch.tensor([[20, 0, 0], [10, 0, 0], [20, 0, 20]]))
    text = page({"one": report})
    assert "Only part of the test data was used after task 1" in text
    assert ["2", "60.0", "84.0", "85.0", "72.5"] in Page(text).rows  # the mean leaves out the task without samples


def test_a_very_long_stream_shows_its_ends():
    acc = torch.full((300, 300), 0.5, dtype=torch.float64).tril()
    text = page({"long": ContinualReport(class_il=acc)})
    rows = Page(text).rows
    head = next(row for row in rows if row[:2] == ["after", "0"])
    assert len(head) == 1 + 100 + 1
    assert head[-2] == "299"
    assert head.count("…") == 1
    assert len(text) < 2_000_000


def test_several_runs_side_by_side(run, tmp_path, monkeypatch):
    other = make_report(class_il=ACC * 0.5, task_il=None, stream_hash="cd" * 32, protocol=None, anytime=anytime())
    second = other.write(tmp_path / "runs" / "two").parent
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), str(second)]) == 0
    text = Path("comparison.html").read_text(encoding="utf-8")
    rows = Page(text).rows
    assert rows[0] == ["", "one", "two"]
    assert ["class-IL: average accuracy", "76.3", "38.2"] in rows
    assert ["class-IL: learning accuracy", "81.8", "40.9"] in rows
    assert ["task-IL: average accuracy", "81.3", "–"] in rows
    assert ["protocol", "1 violated", "not checked"] in rows
    assert "not on the same stream" in text
    same = page({"a": make_report(), "b": make_report()})
    assert "not on the same stream" not in same
    assert text.count("<img") == 2 + 2 * 2  # two pictures of both, two of each


def test_the_configuration_of_the_run_is_on_the_page(run):
    (run / "config.yaml").write_text("model: {lr: 0.1}  # <b>bold</b>\n")
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<pre>model: {lr: 0.1}  # &lt;b&gt;bold&lt;/b&gt;" in text
    Page(text)
    assert "<pre>" not in page({"a": make_report()})


def test_names_of_runs(tmp_path):
    files = [tmp_path / part / "version_0" / "r.json" for part in ("er/a", "mvp/a")]
    assert shortest_names(files) == ["er", "mvp"]
    assert shortest_names([tmp_path / "er" / "version_1" / "r.json"]) == ["er/version_1"]
    assert shortest_names([tmp_path / "er" / "seed0" / "version_1" / "r.json"]) == ["er/seed0/version_1"]
    assert shortest_names([tmp_path / "a" / "r.json", tmp_path / "a" / "b" / "r.json"]) == ["a", "b"]
    assert unique_names(["a", "b", "a"]) == ["a", "b", "a (2)"]


# ---------------------------------------------------------------------- bad input


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["report", *words]) == 2
    return capsys.readouterr().err


def test_no_report_is_one_clear_error(tmp_path, run, capsys):
    assert "there is no folder" in said([str(tmp_path / "nowhere")], capsys)
    message = said([str(tmp_path / "runs")], capsys)
    assert "holds no run: there is no continual_report.json" in message
    assert f"There are reports in {run}" in message
    assert "needs the folder of a run" in said(["--output", "x.html"], capsys)
    assert "has no option `--frobnicate`" in said([str(run), "--frobnicate"], capsys)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "continual_report.json").write_text(json.dumps({"format_version": 99}))
    assert "update lightning_cl" in said([str(tmp_path / "bad")], capsys)
    (tmp_path / "bad" / "continual_report.json").write_text("{")
    assert "cannot be read as a report" in said([str(tmp_path / "bad")], capsys)
    assert "cannot be written" in said([str(run), "--output", str(run)], capsys)
    assert "29 reports were given; 1 to 28 fit on one page. Give fewer" in said([str(run)] * 29, capsys)


def test_help_names_the_command(capsys):
    assert main(["--help"]) == 0
    assert "report DIR..." in capsys.readouterr().out
    assert main(["report", "--help"]) == 0
    assert "side by side" in capsys.readouterr().out


def test_the_newest_version_of_a_logger_folder(tmp_path):
    make_report().write(tmp_path / "version_0")
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "out" / "page.html")]) == 0
    assert (tmp_path / "out" / "page.html").is_file()


# ---------------------------------------------------------------------- a real browser


@pytest.fixture
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium to look at the page with")
    return found


def test_a_browser_shows_the_matrix_and_complains_of_nothing(browser, run, tmp_path):
    assert main(["report", str(run)]) == 0
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom", (run / "report.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    rows = Page(done.stdout).rows
    assert ["1", "90.0", "80.5", "", "85.2"] in rows
