"""The real `lightning-cl compare`: what it is asked, what it plans, what becomes of failed and stopped runs."""

from __future__ import annotations

import copy
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback

from lightning_cl.cli import main
from lightning_cl.cli.arguments import class_name
from lightning_cl.cli.command import read as read_config
from lightning_cl.cli.comparison import NEEDED, PlannedRun
from lightning_cl.cli.comparison_options import Options, choose, read_options, read_seeds
from lightning_cl.cli.configs import RECIPES, UsageError
from lightning_cl.cli.equal_memory import Footprint, aligned_sizes, measure, remarks, too_large, with_memory
from lightning_cl.cli.options import parse
from lightning_cl.cli.processes import in_process
from lightning_cl.reports.report import read

DIGITS = ("--config", "digits")
SHORT = (
    *("--data.scenario.num_tasks", "2", "--data.epochs_per_task", "1"),  # validation follows
    *("--trainer.limit_train_batches", "1", "--data.eval_batch_size", "512", "--trainer.enable_progress_bar", "false"),
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------------- what is asked


def test_seeds() -> None:
    assert read_seeds("3") == (0, 1, 2)
    assert read_seeds("1,3,5") == (1, 3, 5)
    assert read_seeds("7,") == (7,)


def test_methods_are_recipes_methods_files_or_callbacks() -> None:
    Path("mine.yaml").write_text("trainer: {callbacks+: [{class_path: L2P}]}\n")
    Path("behind.yaml").write_text("data: {batch_size: 3}\n")
    recipe = choose("finetune", "digits")
    assert recipe.configs == (str(RECIPES / "digits_finetune.yaml"),)
    composed = choose("er", "digits", ["behind.yaml"])
    expected = (RECIPES / "streams" / "digits.yaml", RECIPES / "methods" / "er.yaml", "behind.yaml")
    assert composed.configs == tuple(map(str, expected))
    mine = choose("mine.yaml", "digits")
    assert (mine.name, mine.configs[1]) == ("mine", "mine.yaml")
    callback = choose("lightning_cl.callbacks.CODAPrompt", "digits")
    assert (callback.name, callback.words[0]) == ("CODAPrompt", "--trainer.callbacks+")
    with pytest.raises(UsageError):  # digits_si_blurry_mvp is of another stream
        choose("si_blurry_mvp", "digits")
    assert choose("mvp", "digits_si_blurry").configs == (str(RECIPES / "digits_si_blurry_mvp.yaml"),)


def test_options_are_sorted() -> None:
    words = ["--methods=er,l2p", "--trainer.max_time", "00:00:01:00", "-c", "digits", "--seeds", "2", "--folder", "x"]
    options = read_options(*parse(["compare", *words]))
    assert isinstance(options, Options)
    assert ([m.name for m in options.methods], options.seeds) == (["er", "l2p"], (0, 1))
    assert (options.folder, options.words) == (Path("x/digits"), ("--trainer.max_time", "00:00:01:00"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "finetun,prototypes", *DIGITS], "no method `finetun` for `digits`; did you mean finetune"),
        (["--methods", "er", "--config", "digitss"], "no recipe `digitss`; did you mean digits"),
        (["--methods", "er", "--config", "digits_l2p"], "`digits_l2p` is a complete recipe"),
        (["--methods", "gone.yaml", *DIGITS], "no file `gone.yaml`"),
        (["--methods", "", *DIGITS], "`--methods` is empty"),
        (["--methods", "er,,l2p", *DIGITS], "has an empty name"),
        (["--methods", "er,er", *DIGITS], "names `er` twice"),
        (["--methods", "er,a/er.yaml", *DIGITS], "no file `a/er.yaml`"),
        (["--methods", "er"], "needs `--config`"),
        ([*DIGITS], "needs `--methods`"),
        (["--methods", "er", *DIGITS, "--seeds", "many"], "`--seeds many` is no number"),
        (["--methods", "er", *DIGITS, "--seeds", "0"], "`--seeds 0` runs nothing"),
        (["--methods", "er", *DIGITS, "--seeds", "1,1"], "has a seed twice"),
        (["--methods", "er", *DIGITS, "--seeds", "-1"], "`--seeds -1` is no number"),
        (["--methods", "er", *DIGITS, "--align", "time"], "`--align time` is unknown; give memory"),
        (["--methods", "er", *DIGITS, "--data.seed", "3"], "`--data.seed` is set by `compare`; use `--seeds`"),
        (["--methods", "er", *DIGITS, "--trainer.logger=false"], "`--trainer.logger` is set by `compare`"),
        (["--methods", "er", "digits"], "needs `--config`"),
        (["--methods", "er", *DIGITS, "digits"], "`digits` is no option"),
        (["runs/nowhere"], "there is no folder `runs/nowhere`"),
        (["."], "holds no run"),
        ([".", "--seeds", "3"], "`--seeds` has no meaning for finished runs"),
        (["--methods", "er,l2p", *DIGITS, "--data.batchsize", "3"], "batchsize"),
        (["--methods", "NoSuch.Thing", *DIGITS], "NoSuch.Thing"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("lightning-cl: ")
    assert not list(Path().glob("runs/**/*"))


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    assert "--align memory" in capsys.readouterr().out
    assert main(["compare"]) == 2
    assert main(["--help"]) == 0
    assert "compare --methods A,B --config STREAM" in capsys.readouterr().out


# ---------------------------------------------------------------------- what is planned


def planned(method: str = "er", seed: int = 3, *words: str) -> PlannedRun:
    choice = choose(method, "digits")
    given = ["fit", *(word for path in choice.configs for word in ("--config", path)), *words]
    return PlannedRun.of(method, seed, Path("runs/compare/digits"), read_config(given, False)[1])


def test_a_run_has_its_seed_its_folder_and_the_callbacks_it_needs() -> None:
    run = planned()
    assert run.config["seed_everything"] == run.config["data"]["seed"] == 3
    assert run.folder == Path("runs/compare/digits/er/seed3")
    names = [class_name(entry) for entry in run.config["trainer"]["callbacks"]]
    assert sorted(names) == sorted({*names, *NEEDED})
    words = run.prepare()
    assert words == ["fit", "--config", str(run.folder / "run.yaml")]
    assert read_config(words, False)[1]["data"] == run.config["data"]  # its file is a config


def test_what_another_configuration_left_is_kept_aside() -> None:
    run = planned()
    run.prepare()
    assert run.describes(run.folder)
    shown = copy.deepcopy(run.config)
    shown["trainer"]["enable_progress_bar"] = False
    assert PlannedRun("er", 3, run.folder, shown).describes(run.folder)  # nothing that a result depends on
    changed = planned("er", 3, "--data.batch_size", "5")
    assert not changed.describes(run.folder)
    (run.folder / "result.json").write_text('{"folder": "version_0"}')
    changed.prepare()
    assert changed.finished() is None
    assert Path("runs/compare/digits/er/seed3-1/result.json").is_file()
    assert changed.describes(run.folder)


# ---------------------------------------------------------------------- equal memory


def test_memories_grow_to_what_the_largest_stores() -> None:
    """arXiv:2302.03648: a method with ten ResNet-32 and 2,000 exemplars gives one with a single one 7,431 exemplars."""
    parameters = 463504 * 4
    one, ten = Footprint(parameters, 2000, 3072, 50_000), Footprint(10 * parameters, 2000, 3072, 50_000)
    assert aligned_sizes({"one": one, "ten": ten}) == {"one": 7431, "ten": 2000}
    assert aligned_sizes({"none": Footprint(100, 0, 1, 9), "all": Footprint(10, 2, 5, 9)}) == {"all": 9}
    assert aligned_sizes({"none": Footprint(100, 0, 1, 9), "all": Footprint(10, 2, 5, 9)}, most=32) == {"all": 4}
    said = remarks({"none": Footprint(100, 0, 1, 99), "all": Footprint(0, 200, 5, 99)}, {"all": 99})
    assert "all: memory of 99 samples (all training samples), in place of 200" in said
    assert any(line.startswith("none: stores") for line in said)


def test_the_memory_size_is_set_in_the_one_callback_that_has_it() -> None:
    config = planned("er").config
    sized = with_memory(config, 20)
    (memory,) = [c["init_args"] for c in sized["trainer"]["callbacks"] if "memory_size" in (c.get("init_args") or {})]
    assert (memory["memory_size"], memory["batch_size"]) == (20, 20)
    assert planned("er").config == config
    with pytest.raises(UsageError, match="but here none has one"):
        with_memory(planned("l2p").config, 20)


# ---------------------------------------------------------------------- processes


def _double(value: int) -> int:
    print("doubling")
    return 2 * value


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(error: BaseException) -> None:
    raise error


def test_whatever_becomes_of_a_process_this_one_goes_on() -> None:
    output = Path("folder/output.txt")
    assert in_process(_double, 4, output=output) == (8, None)
    assert in_process(_raise, UsageError("bad words"), output=output) == (None, "bad words")
    assert in_process(_raise, RuntimeError("first\nsecond"), output=output) == (None, "RuntimeError: first")
    assert in_process(_kill_itself) == (None, "its process was ended by SIGKILL (out of memory?)")
    assert in_process(_raise, SystemExit(3), output=output)[1] == "SystemExit: 3"
    text = output.read_text()
    assert "doubling" in text
    assert "Traceback" in text  # of the RuntimeError; all that was said is kept


# ---------------------------------------------------------------------- runs


class Failing(Callback):
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        raise RuntimeError("broken on purpose")


class StoppedOnce(Callback):
    """The first time the process is killed in the second task."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.current_epoch == 1 and not Path("was_stopped").exists():
            Path("was_stopped").touch()
            os.kill(os.getpid(), signal.SIGKILL)


def own_callback(cls: type) -> str:
    sys.modules.setdefault("comparing_callbacks", sys.modules[__name__])
    return f"comparing_callbacks.{cls.__name__}"


def test_one_failed_run_does_not_lose_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    Path("broken.yaml").write_text(f"trainer: {{callbacks+: [{{class_path: {own_callback(Failing)}}}]}}\n")
    words = ["compare", "--methods", "broken.yaml,prototypes", *DIGITS, "--seeds", "1,", *SHORT]
    assert main(words) == 1
    captured = capfd.readouterr()
    assert "broken, seed 1: failed: RuntimeError: broken on purpose" in captured.err
    assert "broken, seed 1, failed: RuntimeError" in captured.out
    folder = Path("runs/compare/digits")
    assert {"comparison.md", "comparison.csv", "runs.csv", "comparison.png"} <= {p.name for p in folder.iterdir()}
    report = read(folder / "prototypes/seed1/version_0")
    assert report.facts["RunCost"]["forward_samples"] > 0
    assert yaml.safe_load((folder / "prototypes/seed1/version_0/config.yaml").read_text())["data"]["seed"] == 1

    assert main(["compare", "--methods", "prototypes", *DIGITS, "--seeds", "1,", *SHORT]) == 0
    assert "prototypes, seed 1: was finished before" in capfd.readouterr().out
    assert [p.name for p in (folder / "prototypes/seed1").glob("version_*")] == ["version_0"]

    assert main(["compare", str(folder), "--folder", "tables"]) == 0  # tables of what is there
    assert "| prototypes |" in Path("tables/comparison.md").read_text()
    assert main(["compare", str(folder / "prototypes/seed1")]) == 0
    assert main(["compare", str(folder / "broken")]) == 2
    assert "holds no run" in capfd.readouterr().err


@pytest.mark.slow
def test_a_killed_run_continues(capfd: pytest.CaptureFixture[str]) -> None:
    Path("stopped.yaml").write_text(
        f"trainer: {{callbacks+: [{{class_path: FineTuning}}, {{class_path: {own_callback(StoppedOnce)}}}]}}\n"
    )
    words = ["compare", "--methods", "stopped.yaml", *DIGITS, "--seeds", "1", *SHORT]
    assert main(words) == 2  # no run has a result
    assert "ended by SIGKILL" in capfd.readouterr().err
    assert main(words) == 0
    assert "stopped, seed 0: continues" in capfd.readouterr().out
    assert main([*words, "--folder", "whole"]) == 0  # in one piece
    folders = Path("runs/compare/digits/stopped/seed0/version_1"), Path("whole/digits/stopped/seed0/version_0")
    continued, whole = (read(folder) for folder in folders)
    assert continued.class_il.nan_to_num(-1).tolist() == whole.class_il.nan_to_num(-1).tolist()
    assert continued.facts["RunCost"]["forward_samples"] == whole.facts["RunCost"]["forward_samples"]


@pytest.mark.slow
def test_other_streams_are_refused_with_both_hashes(capfd: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text(
        "data: {scenario: {class_path: ClassIncremental, init_args: {class_order: natural}}}\n"
    )
    assert main(["compare", "--methods", "prototypes,other.yaml", *DIGITS, "--seeds", "1", *SHORT]) == 2
    message = capfd.readouterr().err
    hashes = [read(path.parent).stream_hash[:16] for path in Path("runs").rglob("continual_report.json")]
    assert len(set(hashes)) == 2
    assert all(part in message for part in hashes)


def test_a_memory_of_activations_counts_these_and_no_image(tmp_path: Path) -> None:
    """A label; 17 tokens of 128 channels in 8 bits each, and their range; features in 32 bits and their class."""
    file = tmp_path / "larger.yaml"
    given = (RECIPES / "digits_sharp.yaml").read_text("utf-8")
    file.write_text(given.replace("memory_size: 200", "memory_size: 300"), "utf-8")
    small, large = (measure(["fit", "--config", config], False) for config in ("digits_sharp", str(file)))
    assert (small.memory_size, small.sample_bytes) == (200, 8 + 17 * 128 + 8 + 128 * 4 + 8)
    assert large.total - small.total == 100 * small.sample_bytes
    assert large.model_bytes == small.model_bytes


@pytest.mark.slow
def test_a_comparison_at_equal_memory(capfd: pytest.CaptureFixture[str]) -> None:
    """In full on two methods: class means are far above fine-tuning with replay of nothing; and bytes are equal."""
    short = ["--trainer.limit_train_batches", "3", *SHORT[:6], "--trainer.enable_progress_bar", "false"]
    assert main(["compare", "--methods", "coda_prompt,er", *DIGITS, "--seeds", "1", "--align", "memory", *short]) == 0
    assert "er: memory of 1438 samples (all training samples), in place of 500" in capfd.readouterr().out


@pytest.mark.slow
def test_the_comparison_of_the_manual(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--methods", "finetune,prototypes", *DIGITS, "--seeds", "1"]) == 0
    folder = Path("runs/compare/digits")
    reached = {
        method: read(folder / method / "seed0/version_0").metrics["class_il/average_accuracy"]
        for method in ("finetune", "prototypes")
    }
    assert reached["prototypes"] >= 0.93
    assert reached["finetune"] < 0.5
    assert "± standard deviation" not in (folder / "comparison.md").read_text()


def test_what_does_not_fit_into_a_budget_is_named() -> None:
    footprints = {"small": Footprint(50, 0, 5, 9), "large": Footprint(61, 0, 5, 9), "full": Footprint(56, 2, 5, 9)}
    assert too_large(footprints, 61) == {}
    assert list(too_large(footprints, 60)) == ["large", "full"]
    assert too_large(footprints, 60)["full"].endswith("it stores at least 61 bytes, over the budget of 60")
