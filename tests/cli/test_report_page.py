"""`lightning-cl report`: one page that needs nothing but itself, looked at in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reports.pages import ACC, Page, anytime, make_report

from lightning_cl.cli import main
from lightning_cl.cli.report_page import shortest_names
from lightning_cl.reports.page import page, unique_names


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_report(anytime=anytime()).write(tmp_path / "runs" / "one").parent


def test_the_page_needs_nothing_but_itself(run):
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert len(parsed.addresses) == 2  # accuracy curves and the curve inside the run
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.addresses)
    assert not re.search(r"@import|url\(|fetch\(|https?://(?!www\.w3\.org)", text)
    assert not {"link", "iframe", "object", "form"} & set(parsed.tags)


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
    assert ["2", "90.0", "80.5", "", "85.2"] in rows
