"""The real command, driven in-process: listings, recipes, short names, and what it says about bad input."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lightning_cl
from lightning_cl import callbacks, datamodules
from lightning_cl.callbacks import ContinualMethod
from lightning_cl.cli import main
from lightning_cl.cli.catalogue import KINDS, Entry, entries
from lightning_cl.cli.configs import part_names, recipe_names

FIT = ("fit", "--config", "digits_prototypes")
#: One batch of everything, and no files.
SHORT = ("--trainer.fast_dev_run", "1")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed_config(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    capsys.readouterr()
    assert main(["fit", *words, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


# ---------------------------------------------------------------------- listings and help


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "lightning-cl fit digits_coda_prompt" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lightning-cl {lightning_cl.__version__}\n"


def test_help_and_lists_do_not_import_torch() -> None:
    code = (
        "import sys; from lightning_cl.cli import main;"
        "assert main(['--help']) == main(['list']) == main(['--version']) == 0;"
        "assert not {'torch', 'lightning', 'timm'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_lists_hold_what_a_config_may_name() -> None:
    """The listing reads source text; the classes that Python finds are the reference."""
    methods = [getattr(callbacks, name) for name in callbacks.__all__]
    keyed = {m.__name__ for m in methods if issubclass(m, ContinualMethod) and isinstance(m.state_key, str)}
    assert {entry.name for entry in entries("methods")} == keyed
    watching = {m.__name__ for m in methods if not issubclass(m, ContinualMethod)} - {"ContinualCallback"}
    assert {entry.name for entry in entries("callbacks")} == watching
    exported = [getattr(datamodules, name) for name in datamodules.__all__]
    classes = [c for c in exported if inspect.isclass(c)]
    bases = {datamodules.Source, datamodules.TorchvisionSource, datamodules.Scenario}
    for kind, base in (("sources", datamodules.Source), ("scenarios", datamodules.Scenario)):
        expected = {c.__name__ for c in classes if issubclass(c, base) and c not in bases}
        assert {entry.name for entry in entries(kind)} == expected
    assert all(entry.summary for kind in KINDS for entry in entries(kind))


LISTED = {
    "methods": ("CODAPrompt", "coda_prompt"),
    "callbacks": ("RunCost",),
    "sources": ("Digits",),
    "scenarios": ("Joint",),
    "recipes": ("digits_coda_prompt",),
    "streams": ("digits_si_blurry",),
}


@pytest.mark.parametrize("kind", [*LISTED, None])
def test_list_prints_names(kind: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *([kind] if kind else [])]) == 0
    said = capsys.readouterr().out
    assert all(name in said for listed in LISTED if kind in (listed, None) for name in LISTED[listed])


def test_a_list_of_methods_names_no_papers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    said = capsys.readouterr().out
    assert "et al." not in said
    assert "Elastic" in said  # what it is stays


def test_brackets_in_a_list_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_cl.cli.catalogue.entries", lambda kind: [Entry("a", "needs lightning-cl[language]")])
    assert main(["list", "recipes"]) == 0
    assert "needs lightning-cl[language]" in capsys.readouterr().out


# ---------------------------------------------------------------------- recipes and composition


@pytest.mark.parametrize(
    "recipe",  # those of the digits are run, too, and most are a stream and a method of `test_configuration.py`
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("digits_") else ())
        for name in recipe_names()
        if name.removeprefix("digits_") not in part_names("methods")
    ],
)
def test_printed_config_reads_back(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed_config(capsys, "--config", recipe)
    path = tmp_path / "printed.yaml"
    path.write_text(yaml.safe_dump(config))
    assert printed_config(capsys, "--config", str(path)) == config
    model = "CLIPClassifier" if "clip" in recipe or "fscil" in recipe else "ImageClassifier"
    assert config["model"]["class_path"] == f"lightning_cl.models.{model}"


def test_configs_compose_in_order_and_words_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("more.yaml").write_text("data: {batch_size: 7, epochs_per_task: 3}\nmodel: {init_args: {lr: 0.5}}\n")
    words = ["--config", "digits_coda_prompt", "--config=more.yaml", "--data.batch_size", "9"]
    config = printed_config(capsys, *words)
    assert (config["data"]["batch_size"], config["data"]["epochs_per_task"]) == (9, 3)
    assert config["data"]["source"]["class_path"] == "lightning_cl.datamodules.Digits"
    assert config["model"]["init_args"]["lr"] == 0.5
    assert config["model"]["init_args"]["backbone"] == "vit_nano_omniglot"


def test_short_names_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "ImageClassifier", "--data.source", "CIFAR100", "--data.scenario", "ClassIncremental"]
    more = ["--data.scenario.num_tasks", "10", "--trainer.callbacks+", "CODAPrompt"]
    optimizer = ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.1", "--model.lr_schedule", "cosine"]
    config = printed_config(capsys, *words, *more, *optimizer)
    assert config["data"]["source"]["class_path"] == "lightning_cl.datamodules.CIFAR100"
    assert config["data"]["scenario"]["init_args"]["num_tasks"] == 10
    assert config["trainer"]["callbacks"][0]["class_path"] == "lightning_cl.callbacks.CODAPrompt"
    assert config["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert config["model"]["init_args"]["lr_schedule"] == "cosine"


def test_a_run_with_any_optimiser_and_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = ["--model.optimizer", "NAdam", "--model.optimizer.lr", "0.01"]
    scheduler = ["--model.lr_schedule", "StepLR", "--model.lr_schedule.step_size", "2"]
    assert main([*FIT, *SHORT, *optimizer, *scheduler]) == 0


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits recipes ask for one: more only get in each other's way in so small a network."""
    given: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", given.append)
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *args, **kwargs: None)
    assert main([*FIT, *SHORT]) == 0
    assert main([*FIT, *SHORT, "--num_threads", "3"]) == 0
    assert main([*FIT, *SHORT, "--num_threads", "null"]) == 0
    assert given == [1, 3]


def test_the_head_follows_the_data_unless_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, *SHORT]) == 0  # 10 classes, and no number in the recipe
    assert not list(Path().iterdir())  # a fast_dev_run leaves nothing behind
    assert main([*FIT, *SHORT, "--model.num_classes", "12"]) == 0
    assert main([*FIT, *SHORT, "--model.num_classes", "5"]) == 2
    assert "has 5 outputs but the stream has 10 classes" in capsys.readouterr().err


# ---------------------------------------------------------------------- bad input: one message, exit code 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fti"], "unknown command `fti`; did you mean fit?"),
        (["list", "things"], "choose from recipes, streams, methods, sources"),
        (["fit", "--config", "digits_codaprompt"], "no recipe `digits_codaprompt`; did you mean digits_coda_prompt"),
        (["fit", "--config", "digits_joint.yaml"], "no file `digits_joint.yaml`; did you mean digits_joint"),
        (["fit", "--config"], "`--config` needs the name of a recipe"),
        ([*FIT, "--data.source", "Digit"], "unknown source `Digit`; did you mean Digits"),
        ([*FIT, "--data.source=CIFAR1000"], "unknown source `CIFAR1000`; did you mean CIFAR100"),
        ([*FIT, "--data.scenario", "ClassIncrementl"], "unknown scenario `ClassIncrementl`; did you mean ClassInc"),
        ([*FIT, "--model", "ImageClasifier"], "unknown model `ImageClasifier`; did you mean ImageClassifier"),
        ([*FIT, "--model", "no_such.Model"], "cannot import the model `no_such.Model`"),
        ([*FIT, "--trainer.callbacks+", "CODAPromt"], "unknown callback `CODAPromt`; did you mean CODAPrompt"),
        ([*FIT, "--model.optimizer", "NAdaam"], "unknown optimiser `NAdaam`; did you mean NAdam"),
        ([*FIT, "--data.source.root", "x"], "`Digits` has no argument `root`"),
        ([*FIT, "--trainer.callbacks.num_prompts", "3"], "is given as `--callbacks.CLASS.ARGUMENT VALUE`"),
        (["fit", "--config", "small_clip_fscil", "--trainer.callbacks.num_prompt", "3"], "no argument `num_prompt`"),
        ([*FIT, "--data.batch_size", "many"], "`data.batch_size` is many; expected int"),
        ([*FIT, "--data.scenario.num_tasks", "3"], "which 3 does not divide"),
        ([*FIT, "--trainer.max_epochs", "100"], "`max_epochs` is 100 but the schedule has 5 epochs"),
        ([*FIT, "--model.backbone", "vit_nano_omniglott"], "did you mean vit_nano_omniglot"),
        ([*FIT, "--model.checkpoint_path", "gone.pth"], "there is no such file"),
        ([*FIT, "--ckpt_path", "last"], "found no checkpoint in runs/digits_prototypes"),
        ([*FIT, "--ckpt_path", "gone.ckpt"], "there is no checkpoint `gone.ckpt`; give the path of a checkpoint, or"),
        ([*FIT, "--ckpt_path", "words.txt"], "`words.txt` is no checkpoint, or was not written to its end; give"),
        ([*FIT, "--trainer.logger.save_dir", "words.txt/x"], "nothing can be written to `words.txt/x`: "),
        (
            ["compare", "--methods", "l2p", "--config", "digits", "--folder", "words.txt"],
            "is a file; give another folder",
        ),
        (
            ["sweep", "digits_l2p", "--param", "model.lr=1,2", "--local", "1", "--folder", "words.txt/x"],
            "is a file; give",
        ),
        (
            ["sweep", "digits_l2p", "--param", "model.lr=1,2", "--out", "words.txt/x.yaml"],
            "give another folder with `--o",
        ),
        ([*FIT, "--config", "words.txt"], "words.txt holds no settings; write `name: value` lines"),
        (["fit", "--config", "coda_prompt"], "does not say `data.source`, `data.scenario`, `model`; take a recipe"),
        ([*FIT, "--trainer.max_epoch", "3"], "there is no option `trainer.max_epoch`, so nothing would read it"),
        ([*FIT, "--trainer.accelerator", "gpuu"], "invalid accelerator name: `accelerator='gpuu'`"),
        ([*FIT, "--trainer.strategy", "dpp"], "invalid strategy name: `strategy='dpp'`"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.txt").write_text("only words\n")
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.splitlines()[-1].startswith(("lightning-cl: ", "    "))
    assert "Traceback" not in captured.err
    assert not list(Path().glob("runs/**/continual_report.json"))


def test_unknown_names_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("trainer: {callbacks: [{class_path: FineTunning}]}\n")
    assert main([*FIT, "--config", "mine.yaml"]) == 2
    assert "unknown callback `FineTunning`; did you mean FineTuning" in capsys.readouterr().err


def test_debug_gives_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        main([*FIT, "--data.scenario.num_tasks", "3", "--debug"])
    monkeypatch.setenv("LIGHTNING_CL_DEBUG", "1")
    with pytest.raises(ValueError, match="does not divide"):
        main([*FIT, "--data.scenario.num_tasks", "3"])


def test_errors_of_others_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import Trainer

    def fit(self: Trainer, *args: object, **kwargs: object) -> None:
        raise ValueError("not ours")

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(ValueError, match="not ours"):
        main([*FIT, *SHORT])


# ---------------------------------------------------------------------- runs


def test_a_run_leaves_config_report_and_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    """Twice: two versions. Then evaluation of the last checkpoint."""
    short = ["--data.scenario.num_tasks", "2", "--trainer.limit_val_batches", "1"]
    for version in (0, 1):
        assert main([*FIT, *short]) == 0
        folder = Path(f"runs/digits_prototypes/version_{version}")
        assert (folder / "continual_report.json").is_file()
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        assert saved["model"]["init_args"]["num_classes"] == 10
        names = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert names == ["last.ckpt", "task=0.ckpt", "task=1.ckpt"]
        assert Path("runs/digits_prototypes/latest").resolve() == folder.resolve()
    capsys.readouterr()
    assert main(["test", *FIT[1:], *short, "--ckpt_path", "last", "--trainer.limit_test_batches", "1"]) == 0
    assert "test_acc" in capsys.readouterr().out
    assert main(["predict", *FIT[1:], *short, "--ckpt_path", "last", "--trainer.limit_predict_batches", "1"]) == 0
    assert main(["validate", "--config", "runs/digits_prototypes/version_1/config.yaml"]) == 0


def test_ctrl_c_says_where_things_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_cl.models import ImageClassifier

    step = ImageClassifier.training_step

    def interrupted(self: ImageClassifier, batch: object, batch_idx: int) -> object:
        if self.trainer.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "training_step", interrupted)
    assert main(["fit", "--config", "digits_finetune", "--data.epochs_per_task", "1", *SMALL]) == 130
    message = capsys.readouterr().err.splitlines()[-1]
    assert "interrupted in epoch 1 of 5" in message
    assert "Report: runs/digits_finetune/version_0/continual_report.json" in message
    assert "--ckpt_path runs/digits_finetune/version_0/checkpoints/last.ckpt" in message


SMALL = (
    *("--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "1"),
    *("--trainer.limit_val_batches", "1"),
)


@pytest.mark.slow
def test_two_processes_from_the_command_line() -> None:
    """The second process is a fresh Python that reads the same command line."""
    words = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    command = [sys.executable, "-m", "lightning_cl.cli", *FIT, *words, "--trainer.limit_val_batches", "1"]
    done = subprocess.run(
        [*command, "--data.scenario.num_tasks", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Average accuracy" in done.stdout
    assert sorted(path.name for path in Path("runs/digits_prototypes").iterdir()) == ["latest", "version_0"]
