"""Every packaged recipe says how to run it; those that need no download run, cut short, and one in full."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest
import yaml

from lightning_cl.cli import main
from lightning_cl.cli.configs import RECIPES, part_names, recipe_names
from lightning_cl.reports.report import read

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
    ends = accumulate(epochs) if isinstance(epochs, list) else [epochs]
    assert all(end % every == 0 for end in ends)


#: Recipes that are tried over the whole stream: one for every family of methods, and what is no method's.
WHOLE = ("aper", "coda_prompt", "ewc", "gem", "joint", "lwf", "prototypes", "replay", "si_blurry_mvp")
#: 72 images a task; virtual outliers are made with 50 of them.
SHORT = ["--data.source.test_fraction", "0.8", "--data.epochs_per_task", "1", "--trainer.check_val_every_n_epoch", "1"]
SHORT += ["--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]


def short(recipe: str) -> list[str]:
    """The options with the place that the digits have in this recipe."""
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    within = any(name in text for name in ("Corrupted", "PermutedLabels", "LabelLevels"))
    return [option.replace("source.test", "source.source.test") if within else option for option in SHORT]


@pytest.mark.parametrize("recipe", [name for name in OFFLINE if name[7:] not in WHOLE])
def test_an_offline_recipe_makes_a_step(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", recipe, *short(recipe), "--trainer.max_steps", "1"]) == 0
    assert Path("runs", recipe, "version_0", "config.yaml").is_file()


@pytest.mark.parametrize("recipe", [name for name in OFFLINE if name[7:] in WHOLE])
def test_offline_recipes_run_cut_short(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", recipe, *short(recipe)]) == 0
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


@pytest.mark.parametrize("name", part_names("streams"))
def test_a_stream_is_complete_without_a_method(name: str) -> None:
    text = (RECIPES / "streams" / f"{name}.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert f"\n# lightning-cl fit --config {name} --config " in text
    assert config["trainer"]["logger"]["init_args"] == {"save_dir": "runs", "name": name}
    assert {"ContinualEvaluation", "ContinualCheckpoint"} <= {c["class_path"] for c in config["trainer"]["callbacks"]}
    assert {"model", "data", "trainer"} <= set(config)
    epochs = config["data"]["epochs_per_task"]
    assert epochs % config["trainer"].get("check_val_every_n_epoch", 1) == 0


@pytest.mark.parametrize(
    "path", sorted((RECIPES.parents[1] / "benchmarks" / "streams").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_stream_of_the_benchmarks_is_a_configuration(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(path), "--config", "er", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert f"benchmarks/streams/{path.name} --methods" in path.read_text(encoding="utf-8")
    assert config["data"]["epochs_per_task"] == config["trainer"]["check_val_every_n_epoch"]
    assert "ExperienceReplay" in str(config["trainer"]["callbacks"])


#: Methods that an online stream does not suit, and what they say.
REFUSED = {
    **dict.fromkeys(("dynamically_expandable", "foster", "memo"), "begins a new trunk when a task ends"),
    "ovor": "virtual outliers are made with",  # a task of one sample
    "acil": "ACIL is for tasks of disjoint classes",
    "bic": "nobody tells where that is",
    **dict.fromkeys(("icarl", "sharp"), "nobody tells where that is"),
    "prd": "PRD takes its copy when a task ends",
    "expert_gate": "ExpertGate fits a gate when a task ends",
    "imbalance_aware_joint": "ImbalanceAwareJoint begins anew when a task ends",
    "gere": "GeRe without `general` draws on the samples of the first task",
    "seq_star": "when a task ends",
    "shrink_and_perturb": "ShrinkAndPerturb shrinks the weights when a task ends",
    "slm": "SLM takes the next updates when a task ends",
    "warmup_at_shift": "WarmupAtShift warms up when a task ends",
    "fast_slow_weights": "FastSlowWeights moves its slow weights when a task ends",
    **dict.fromkeys(
        (
            *("bag_of_tricks", "mamba_fscil", "preassigned_prototypes", "pseudo_classes", "teen"),
            *("rotation_task", "self_supervised_pretraining", "subnet_tuning", "supervised_contrast"),
        ),
        "ends its base session when a task ends",
    ),
    "dkvb": "DKVB fits its keys to the first task's images",
    "ranpac": "RanPAC chooses the ridge when a task ends",
    **dict.fromkeys(
        (
            *("clr", "contracon", "dst", "generative_kernel", "hat", "hypernetwork", "packnet", "pfnr", "piggyback"),
            "supsup",
        ),
        "keeps a head for each task, but the classes",
    ),
}
#: Methods whose window of losses is longer than a run cut so short.
SHORT_OF_LOSSES = {("digits", "task_free_mas"), ("digits_si_blurry", "task_free_mas"), ("digits_si_blurry", "tame")}
QUICK = {("digits", "prototypes"), ("digits_si_blurry", "mvp_r")}
#: On the stream whose recipes do not run the method themselves, see above.
PAIRS = [
    pytest.param(stream, method, marks=() if (stream, method) in QUICK else pytest.mark.slow)
    for stream in ("digits", "digits_si_blurry")
    for method in part_names("methods")
    if (stream, method) in QUICK or f"{stream}_{method}" not in OFFLINE
]


@pytest.mark.parametrize(("stream", "method"), PAIRS)
def test_every_method_runs_on_the_offline_streams(stream, method, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["fit", "--config", stream, "--config", method, *SHORT])
    if stream == "digits_si_blurry" and method in REFUSED:
        assert code == 2
        assert REFUSED[method] in capsys.readouterr().err
        return
    if (stream, method) in SHORT_OF_LOSSES:
        assert code == 2
        assert "window" in capsys.readouterr().err
        return
    assert code == 0
    report = read(Path("runs", f"{stream}_{method}", "version_0"))
    assert len(report.matrix) == 5
    assert report.methods
