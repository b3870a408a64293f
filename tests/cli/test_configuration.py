"""A configuration is read completely before data is touched; what is wrong in it is said in one sentence."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_cl import callbacks, datamodules, models
from lightning_cl.cli import command, main
from lightning_cl.cli.configs import RECIPES, part_names
from lightning_cl.datamodules import Digits

FIT = ("fit", "--config", "digits_coda_prompt")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source must not be opened."""

    def opened(self: Digits) -> None:
        raise AssertionError("the data was opened before the configuration was known to be right")

    monkeypatch.setattr(Digits, "prepare", opened)
    monkeypatch.setattr(Digits, "setup", opened)


def callback(name: str, **init_args: object) -> dict:
    return {"trainer": {"callbacks+": [{"class_path": name, "init_args": init_args}]}}


def scenario(**init_args: object) -> dict:
    return {"data": {"scenario": {"class_path": "ClassIncremental", "init_args": init_args}}}


NOTHING = "so nothing would read it; did you mean"
LOGGER = {"class_path": "CSVLogger", "init_args": {"nme": "x"}}
WRONG = [
    (callback("L2P", pool_sze=3), "`L2P` has no argument `pool_sze`; did you mean pool_size"),
    (callback("L2P", pool_size="many"), "`pool_size` of `L2P` is many; expected int."),
    (callback("ExperienceReplay", memory_size=0), "`memory_size` is 0; give a number of samples"),
    (callback("ExperienceReplay", policy="rnig"), "`policy` of `ExperienceReplay` is rnig; expected"),
    (
        callback("PrototypeClassifier", distance="x"),
        "is x; expected Literal['euclidean', 'cosine']",
    ),
    (callback("RunCost", repeats=0), "`repeats` is 0"),
    (callback("L2PP"), "unknown callback `L2PP`; did you mean L2P"),
    (scenario(num_task=5), "`ClassIncremental` has no argument `num_task`; did you mean num_tasks"),
    (scenario(num_tasks="many"), "`num_tasks` of `ClassIncremental` is many; expected int | None."),
    (scenario(num_tasks=0), "`num_tasks`"),
    ({"data": {"source": {"init_args": {"image_sze": 3}}}}, "`Digits` has no argument `image_sze`; did you mean image"),
    ({"data": {"batchsize": 3}}, f"no option `data.batchsize`, {NOTHING} data.batch_size"),
    ({"data": {"batch_size": 0}}, "`batch_size` is 0"),
    ({"daat": {"batch_size": 3}}, f"no option `daat.batch_size`, {NOTHING} data.batch_size"),
    ({"trainer": {"callbaks": []}}, f"no option `trainer.callbaks`, {NOTHING} trainer.callbacks"),
    ({"trainer": {"logger": LOGGER}}, "`CSVLogger` has no argument `nme`"),
    ({"model": {"init_args": {"lrr": 3}}}, "`ImageClassifier` has no argument `lrr`; did you mean lr"),
]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("config", "message"), WRONG)
def test_what_is_wrong_is_said_before_data_is_opened(
    config: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.yaml").write_text(yaml.safe_dump(config))
    assert main([*FIT, "--config", "wrong.yaml"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if line.startswith("lightning-cl: ")]) == 1
    assert not list(Path().glob("runs/**/*"))


@pytest.mark.usefixtures("untouched")
def test_wrong_words_and_broken_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--trainer.devcies", "2"]) == 2
    assert (
        "no option `trainer.devcies`, so nothing would read it; did you mean trainer.devices" in capsys.readouterr().err
    )
    Path("broken.yaml").write_text("trainer: {callbacks: [}\n")
    assert main([*FIT, "--config", "broken.yaml"]) == 2
    assert "broken.yaml is no YAML, line 1, column 23" in capsys.readouterr().err


# ---------------------------------------------------------------------- help


@pytest.mark.parametrize(
    ("option", "name", "argument"),
    [
        ("--trainer.callbacks.help", "CODAPrompt", "--trainer.callbacks.prompt_length"),
        ("--data.source.help", "CIFAR100", "--data.source.download"),
        ("--data.scenario.help", "SiBlurry", "--data.scenario.disjoint_class_pct"),
        ("--model.help", "ImageClassifier", "--model.backbone"),
    ],
)
def test_help_of_a_class_by_its_short_name(
    option: str, name: str, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", option, name]) == 0
    assert argument in capsys.readouterr().out
    assert main(["fit", option, f"{name}x"]) == 2
    assert f"`{name}x`; did you mean {name}" in capsys.readouterr().err


def undocumented(parser: ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.help is None or not action.help.strip()]


def test_every_argument_of_every_class_has_a_help_text() -> None:
    missing = {}
    for module in (callbacks, datamodules, models):
        for name in module.__all__:
            cls = getattr(module, name)
            if inspect.isclass(cls) and not inspect.isabstract(cls):
                parser = ArgumentParser(exit_on_error=False)
                parser.add_class_arguments(cls, "x", fail_untyped=False, sub_configs=True)
                missing[name] = undocumented(parser)
    assert {name: found for name, found in missing.items() if found} == {}
    assert len(missing) > 40


def test_every_option_of_a_run_has_a_help_text(monkeypatch: pytest.MonkeyPatch) -> None:
    parsers = []
    monkeypatch.setattr(
        command.ParsingCLI,
        "before_instantiate_classes",
        lambda self: parsers.append(self._subcommand_parsers["fit"]),
    )
    path = str(RECIPES / "digits_finetune.yaml")
    command.read(["fit", "--config", path], False)
    assert undocumented(parsers[0]) == []
    assert "packaged recipe" in next(action.help for action in parsers[0]._actions if action.dest == "config")
    assert len(parsers[0]._actions) > 60


# ---------------------------------------------------------------------- printing and reading back

#: Every method on one stream, and every stream with one method; two of them quick.
CHOSEN = [("digits", method) for method in part_names("methods")] + [(s, "mvp_r") for s in part_names("streams")]
PAIRS = [
    pytest.param(*pair, marks=() if pair in (("digits", "er"), ("digits", "ovor")) else pytest.mark.slow)
    for pair in dict.fromkeys(CHOSEN)
]


@pytest.mark.parametrize(("stream", "method"), PAIRS)
def test_a_printed_composition_reads_back(stream: str, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", stream, "--config", method, "--print_config"]) == 0
    printed = capsys.readouterr().out
    Path("printed.yaml").write_text(printed)
    assert main(["fit", "--config", "printed.yaml", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)
