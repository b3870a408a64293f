"""What a run leaves behind: the newest one is linked, a failed one leaves nothing, nor does one without a logger."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from lightning_cl.cli import main
from lightning_cl.cli.command import validate_at_task_ends
from lightning_cl.cli.run_files import point_to, remove_empty_run
from lightning_cl.cli.terminal import is_news, quiet

SHORT = (
    *("--data.scenario.num_tasks", "2", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"),
    *("--trainer.num_sanity_val_steps", "0"),
)
PROBE = """
from lightning.pytorch import Callback
class Broken(Callback):
    def setup(self, trainer, pl_module, stage):
        raise ValueError("this callback never starts")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_failed_run_leaves_no_folder_and_a_class_in_the_current_folder_is_found() -> None:
    Path("my_probe.py").write_text(PROBE)
    with pytest.raises(ValueError, match="never starts"):
        main(["fit", "digits_prototypes", *SHORT, "--trainer.callbacks+", "my_probe.Broken"])
    assert not Path("runs").exists()


def test_without_a_logger_there_are_no_files_unless_there_is_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.logger", "false", "--data.epochs_per_task", "1"]
    assert main(["fit", "digits", "prototypes", *SHORT, *words]) == 0
    assert "Average accuracy" in capsys.readouterr().out
    assert not list(Path().iterdir())
    assert main(["fit", "digits", "prototypes", *SHORT, *words, "--trainer.default_root_dir", "here"]) == 0
    assert {path.name for path in Path("here").iterdir()} >= {"continual_report.json", "config.yaml", "checkpoints"}


def test_the_newest_run_is_linked_and_an_older_one_after_a_failure() -> None:
    for version in (0, 1):
        folder = Path("runs/name", f"version_{version}")
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("x")
        point_to(folder)
    assert Path("runs/name/latest").resolve() == folder.resolve()
    assert Path("runs/name/latest").readlink() == Path("version_1")  # the folder can be moved
    remove_empty_run(folder)
    assert not folder.exists()
    assert Path("runs/name/latest").resolve() == Path("runs/name/version_0").resolve()
    (Path("runs/name/version_0") / "mine.txt").write_text("kept")
    remove_empty_run(Path("runs/name/version_0"))
    assert Path("runs/name/version_0/mine.txt").is_file()


@pytest.mark.parametrize(
    ("epochs", "words", "every"),
    [
        (2, ["--data.epochs_per_task", "2"], 2),
        (10, ["--data.epochs_per_task=10"], 5),
        ([4, 6], ["--data.epochs_per_task", "[4,6]"], 1),
        ([10, 5], ["--data.epochs_per_task", "[10,5]"], 5),
        (2, ["--data.epochs_per_task", "2", "--trainer.check_val_every_n_epoch", "5"], 5),
        (2, [], 5),
    ],
)
def test_validation_follows_the_epochs_of_the_command_line(epochs: object, words: list[str], every: int) -> None:
    trainer = Namespace(check_val_every_n_epoch=5)
    validate_at_task_ends(Namespace(trainer=trainer, data=Namespace(epochs_per_task=epochs)), words)
    assert trainer.check_val_every_n_epoch == every


def test_tips_and_hints_of_others_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from lightning.fabric.utilities.warnings import PossibleUserWarning

    logger = logging.getLogger("lightning")
    before = list(logger.handlers)
    try:
        with warnings.catch_warnings(), quiet():
            logging.getLogger("lightning.pytorch.utilities.rank_zero").info("Tip: buy this")
            logging.getLogger("lightning.pytorch.utilities.rank_zero").info("said")
            warnings.warn("use `sync_dist`", PossibleUserWarning, stacklevel=1)
            assert warnings.formatwarning("so it is", UserWarning, "file.py", 3) == "Warning: so it is\n"
    finally:
        logger.handlers = before
    assert capsys.readouterr().err == "said\n"
    assert not is_news(logging.makeLogRecord({"msg": "GPU available: False, used: False"}))


def test_a_saved_config_runs_again_with_the_summary_of_layers_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "digits_prototypes", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["enable_model_summary"] is False


@pytest.mark.slow
def test_the_main_job_without_terminal_home_and_unicode_in_a_folder_with_umlauts(tmp_path: Path) -> None:
    folder = tmp_path / "Zwölf große Äpfel"
    folder.mkdir()
    kept = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
    env = {name: value for name, value in os.environ.items() if name in kept}
    command = [sys.executable, "-m", "lightning_cl", "fit", "digits_coda_prompt", "--data.epochs_per_task", "1", *SHORT]
    done = subprocess.run(
        command, cwd=folder, env={**env, "LC_ALL": "C", "COLUMNS": "40"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout.decode("utf-8", "replace")
    assert "Average accuracy" in shown
    assert "\x1b" not in shown
    assert "Task 1 of" not in shown  # no bar where nobody looks
    assert (folder / "runs/digits_coda_prompt/latest/continual_report.json").is_file()
