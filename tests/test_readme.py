"""Every command and snippet of the README runs."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from documented import ROOT, blocks

from lightning_cl.cli import main

PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")
COMMANDS, SNIPPETS = blocks(PAGE, "command", "bash"), blocks(PAGE, "snippet", "python")
SLOW_COMMANDS = blocks(PAGE, "command-slow", "bash")


def test_every_table_is_one() -> None:
    """A row that follows no row is shown as text."""
    for table in re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE):
        assert re.match(r"\|.*\|\n\|( --- \|)+\n", table), table[:80]


def test_the_table_of_methods_is_the_package_s() -> None:
    """Made by ``python docs/hooks.py``."""
    generated = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["fill_readme"](README)
    assert generated == README
    assert all(f"[`{name}`]" in README for name in ("EWC", "LwF", "DERPlusPlus", "APER", "CODAPrompt", "TEEN"))


def test_the_ci_run_has_the_slow_tests_too() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^pytest .*-m slow ", script, re.MULTILINE)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_fenced_block_is_named_and_so_executed() -> None:
    fenced = len(re.findall(r"^```\w+$", README, re.MULTILINE))
    assert fenced == len(COMMANDS) + len(SLOW_COMMANDS) + len(SNIPPETS)


def test_the_two_set_up_commands_install_and_go() -> None:
    assert COMMANDS["run"].split("&&")[0].strip() == "pip install ."
    assert COMMANDS["test"].strip() == 'pip install -e ".[test]" && pytest -n auto'  # .ci/run executes it


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for name, code in SNIPPETS.items():  # the later ones go on with what is there
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        short = code.replace("Trainer(", "Trainer(limit_train_batches=2, limit_val_batches=2, accelerator='cpu', ")
        exec(compile(short, f"README.md [{name}]", "exec"), namespace)
        assert list(folder.rglob("continual_report.json")), name


def words(command: str) -> list[str]:
    line = command.split("&&")[-1].strip()
    program, *rest = shlex.split(line)
    assert program == "lightning-cl"
    return rest


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"test", "run"}))
def test_command_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words(COMMANDS[name])) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW_COMMANDS))
def test_longer_command_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words(SLOW_COMMANDS[name])) == 0


def test_main_job_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1", "--data.epochs_per_task", "1"]
    assert main([*words(COMMANDS["run"]), *short, "--trainer.check_val_every_n_epoch", "1"]) == 0
    assert list(tmp_path.rglob("accuracy_matrix.png"))


@pytest.mark.slow
def test_main_job_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_cl.metrics import read_report

    monkeypatch.chdir(tmp_path)
    assert main(words(COMMANDS["run"])) == 0
    (report,) = tmp_path.rglob("continual_report.json")
    accuracy = read_report(report).metrics["class_il/average_accuracy"]
    assert accuracy is not None
    assert accuracy > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("callbacks", ["CODAPrompt()", "DualPrompt(), ExperienceReplay(memory_size=100)"])
def test_the_first_snippet_reaches_what_its_table_says(
    callbacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_cl import callbacks as C
    from lightning_cl.metrics import read_report

    said = float(re.findall(rf"^\| `{re.escape(callbacks)}` \| ([\d.]+) \|", README, re.MULTILINE)[0])
    monkeypatch.chdir(tmp_path)
    code = SNIPPETS["drop-in"].replace("[CODAPrompt(), ", f"[{callbacks}, ")
    code = code.replace("Trainer(", "Trainer(check_val_every_n_epoch=5, enable_progress_bar=False, accelerator='cpu', ")
    names = {name: getattr(C, name) for name in ("DualPrompt", "ExperienceReplay")}
    exec(compile(code, "README.md [drop-in]", "exec"), {"__name__": "__main__", **names})
    (report,) = tmp_path.rglob("continual_report.json")
    assert 100 * read_report(report).metrics["class_il/average_accuracy"] == pytest.approx(said, abs=5)
