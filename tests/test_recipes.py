"""Every packaged recipe says how to run it; those that need no download run, cut short, and one in full."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lightning_cl.cli import main
from lightning_cl.cli_support.catalogue import RECIPES
from lightning_cl.cli_support.configs import recipe_names
from lightning_cl.metrics.report import read

OFFLINE = [name for name in recipe_names() if name.startswith("digits_")]


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_opens_with_its_command_and_keeps_runs_apart(recipe: str) -> None:
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    head = text.split("seed_everything")[0]
    assert f"\n# lightning-cl fit --config {recipe}\n" in head
    assert f"lightning-cl fit --config {recipe} --ckpt_path last\n" in head
    assert "Measured" in head or "Not run here yet" in head
    config = yaml.safe_load(text)
    assert config["trainer"]["logger"]["init_args"] == {"save_dir": "runs", "name": recipe}
    assert {"ContinualEvaluation", "ContinualCheckpoint"} <= {c["class_path"] for c in config["trainer"]["callbacks"]}
    every, epochs = config["trainer"].get("check_val_every_n_epoch", 1), config["data"]["epochs_per_task"]
    assert epochs % every == 0


@pytest.mark.parametrize("recipe", OFFLINE)
def test_offline_recipes_run_cut_short(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = [
        "--data.epochs_per_task",
        "1",
        "--trainer.check_val_every_n_epoch",
        "1",
        "--trainer.limit_val_batches",
        "2",
    ]
    assert main(["fit", "--config", recipe, *short, "--trainer.limit_train_batches", "2"]) == 0
    folder = Path("runs", recipe, "version_0")
    assert len(read(folder).matrix) == (1 if recipe == "digits_joint" else 5)
    assert {"config.yaml", "accuracy_matrix.png", "metrics.csv"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_digits_recipes_reach_what_they_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In full, one seed: CODA-Prompt is 40 points above fine-tuning without replay, prototypes and joint are high."""
    monkeypatch.chdir(tmp_path)
    reached = {}
    for recipe in ("digits_finetune", "digits_coda_prompt", "digits_prototypes", "digits_joint"):
        assert main(["fit", "--config", recipe]) == 0
        reached[recipe] = read(Path("runs", recipe, "version_0")).class_il[-1].mean().item()
    assert reached["digits_coda_prompt"] >= reached["digits_finetune"] + 0.40, reached
    assert reached["digits_prototypes"] >= 0.93, reached
    assert reached["digits_joint"] >= 0.95, reached
