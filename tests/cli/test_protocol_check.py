"""``lightning-cl check``, driven in-process: a trial of a config, a look at a run, and what it says when it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_cl.cli import main
from lightning_cl.metrics import ContinualReport
from lightning_cl.reports.protocol import CHECKS, Check, ProtocolCard


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_a_recipe_passes_and_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "digits_prototypes"]) == 0
    printed = capsys.readouterr().out
    assert "A trial: 2 of 5 task(s)" in printed
    assert all(name in printed for name in CHECKS)
    assert printed.splitlines()[-1] == "Protocol: 16 checks passed, 0 failed, 2 not made."
    assert files() == []


#: One for each kind of stream and of setting; the conformance suite checks every method.
CHECKED = ["digits_er_ace", "digits_hat", "digits_joint", "digits_si_blurry_gacil", "digits_slca"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", CHECKED)
def test_recipes_pass(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", recipe]) == 0, capsys.readouterr().out


def test_violations_are_exit_code_1_and_a_checkpoint_that_monitors_is_not_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("mine.yaml").write_text(
        "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val_acc, mode: max}}, "
        "{class_path: ModelCheckpoint, init_args: {dirpath: saved, monitor: val_loss}}]}"
    )
    assert main(["check", "digits_prototypes", "--config", "mine.yaml"]) == 1
    printed = capsys.readouterr().out
    assert "Violated: selection (nothing is chosen by results on the test split), after task 1-2:" in printed
    assert 'EarlyStopping(monitor="val_acc"), ModelCheckpoint(monitor="val_loss") decides' in printed
    assert files() == ["mine.yaml"]


def test_a_finished_run_is_looked_at_anew(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--data.scenario.num_tasks", "2", "--trainer.limit_val_batches", "1"]
    assert main(["fit", "--config", "digits_prototypes", *short]) == 0
    before = files()
    capsys.readouterr()
    assert main(["check", "runs/digits_prototypes"]) == 0
    printed = capsys.readouterr().out
    assert "Looking at runs/digits_prototypes/version_0/checkpoints/" in printed
    assert "the task was not trained here" in printed
    assert "64 samples" not in printed
    assert files() == before


def test_a_recorded_card_counts(capsys: pytest.CaptureFixture[str]) -> None:
    for result, code in (("pass", 0), ("fail", 1)):
        card = ProtocolCard().add([Check("labels", result, "64 samples", "it reads labels.").after(3)])
        report = ContinualReport(class_il=torch.tensor([[1.0]]), protocol=card.to_dict())
        report.write("run", keep_previous=False)
        assert main(["check", "run" if code else "run/continual_report.json"]) == code
        assert "As recorded in run/continual_report.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no_such_recipe"], "there is no recipe `no_such_recipe`"),
        (["empty"], "empty holds no run: there is no continual_report.json"),
        (["last.ckpt"], "`last.ckpt` is no configuration, for it is not text; a checkpoint goes to `--ckpt_path`"),
        (["unguarded"], "the run in unguarded was made without `ProtocolGuard`"),
        (["digits_prototypes", "--data.scenario.num_tasks", "3"], "which 3 does not divide"),
        (["digits_prototypes", "--data.source", "Digit"], "unknown source `Digit`; did you mean Digits"),
    ],
)
def test_what_cannot_be_checked(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    torch.save({"state_dict": {}}, "last.ckpt")
    ContinualReport(class_il=torch.tensor([[1.0]])).write("unguarded")
    assert main(["check", *words]) == 2
    assert message in capsys.readouterr().err


def test_help_is_quick_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "check NAME|CONFIG|RUN_DIR" in capsys.readouterr().out
    assert main(["check", "--help"]) == 0
    assert "0 no violation, 1 violation, 2 cannot be checked" in capsys.readouterr().out
    assert main(["check"]) == 2
    assert main(["chekc"]) == 2
    assert "did you mean check" in capsys.readouterr().err
    code = (
        "import sys; from lightning_cl.cli import main; assert main(['check', '--help']) == 0;"
        "assert not {'torch', 'lightning', 'timm'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
