"""Sweeps: the space that is typed, the file for W&B and its command line, trials here, and the two phases apart."""

from __future__ import annotations

import csv
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch.loggers
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl import callbacks as callbacks_module
from lightning_cl import datamodules, models, targets
from lightning_cl.callbacks import TwoPhaseProtocol
from lightning_cl.callbacks.evaluation.task_counts import SPACES
from lightning_cl.cli import main, options, sweep
from lightning_cl.cli.arguments import (
    argument_names,
    find,
    import_class,
    known_arguments,
    plain_config,
    resolve,
    split,
    value_at,
)
from lightning_cl.cli.arguments import parse as parse_words
from lightning_cl.cli.configs import RECIPES, UsageError, part_names, recipe_names, resolve_configs
from lightning_cl.cli.sweep_phases import METRICS, Phases
from lightning_cl.cli.sweep_space import (
    Choice,
    Composition,
    Range,
    grid,
    log_integers,
    parse,
    split_values,
    sweep_config,
)
from lightning_cl.cli.sweep_trials import Trial, best
from lightning_cl.metrics import ContinualReport
from lightning_cl.reports.files import to_json
from lightning_cl.reports.protocol import ProtocolError
from lightning_cl.reports.report import FILE_NAME, read

RECIPE, LENGTH = "digits_coda_prompt", "callbacks.CODAPrompt.prompt_length"
#: One epoch a task with one batch.
CUT = (
    *("--data.epochs_per_task", "1", "--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "1"),
    *("--trainer.enable_progress_bar", "false"),
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")


@cache
def composed(*words: str) -> Composition:
    """Built once for all tests, and every value parsed and every stream laid out once: it takes seconds."""
    made = Composition(words or ("--config", RECIPE))
    made.typed, stream = cache(made.typed), made.stream  # type: ignore[method-assign]
    laid_out: dict[str, Any] = {}

    def once(config: dict[str, Any]) -> Any:
        key = json.dumps(config["data"], sort_keys=True)
        return laid_out[key] if key in laid_out else laid_out.setdefault(key, stream(config))

    made.stream = once  # type: ignore[method-assign]
    return made


@pytest.fixture(autouse=True)
def _compose_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "Composition", lambda words, debug: composed(*words))


def parsed(*words: str) -> dict[str, Any]:
    """What `fit` makes of a command line."""
    parser = composed().parser
    return plain_config(parser, parse_words(parser, resolve_configs(words)[0]))


def space(*given_: str) -> list[Any]:
    return parse(given_, composed().arguments, composed().typed)


# ---------------------------------------------------------------------- short paths


def test_split_leaves_other_words_alone() -> None:
    words = ["fit", "--callbacks.A.x=1", "--config", "c", "--callbacks.1.y.z", "[1, 2]", "--trainer.callbacks+", "B"]
    rest, found = split(words)
    assert rest == ["fit", "--config", "c", "--trainer.callbacks+", "B"]
    assert [(a.owner, a.argument, a.value) for a in found] == [("A", "x", "1"), ("1", "y.z", "[1, 2]")]
    for wrong, message in ((["--callbacks.A=3"], "names no argument"), (["--callbacks.A.x"], "needs a value")):
        with pytest.raises(UsageError, match=message):
            split(wrong)


def test_find_by_name_or_place() -> None:
    assert (find(["A", "B"], "B"), find(["A", "B", "A"], "2")) == (1, 2)
    for names, owner, message in (
        (["Alpha", "B"], "Alpa", "did you mean Alpha"),
        (["A", "B", "A"], "A", r"`callbacks\.0` or `callbacks\.2`"),
        (["A"], "1", "there is no callback 1"),
    ):
        with pytest.raises(UsageError, match=message):
            find(names, owner)


def test_fit_takes_arguments_of_callbacks() -> None:
    plain = parsed("fit", "--config", RECIPE)
    changed = parsed("fit", "--config", RECIPE, f"--{LENGTH}", "4", "--callbacks.1.print_table=false")
    callbacks = changed["trainer"]["callbacks"]
    assert callbacks[0]["init_args"].pop("prompt_length") == 4
    assert callbacks[1]["init_args"].pop("print_table") is False
    assert plain["trainer"]["callbacks"][0]["init_args"].pop("prompt_length") == 8
    assert plain["trainer"]["callbacks"][1]["init_args"].pop("print_table") is True
    assert changed == plain


def test_fit_takes_arguments_of_a_callback_that_the_words_add() -> None:
    words = ["--callbacks.ProtocolGuard.probe", "8", "--trainer.callbacks+", "ProtocolGuard"]
    assert parsed("fit", "--config", RECIPE, *words)["trainer"]["callbacks"][-1]["init_args"]["probe"] == 8


def test_the_real_command_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", RECIPE, f"--{LENGTH}", "4", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"][0]["init_args"]["prompt_length"] == 4
    assert main(["fit", "--config", RECIPE, f"--{LENGTH}=four"]) == 2
    assert f"`{LENGTH}` is 'four'; expected int." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--callbacks.CODAPromt.prompt_length=4", "no callback `CODAPromt`; did you mean CODAPrompt?"),
        ("--callbacks.CODAPrompt.promt_length=4", "no argument `promt_length`; did you mean prompt_length?"),
        (f"--{LENGTH}=four", f"`{LENGTH}` is 'four'; expected int."),
    ],
)
def test_fit_says_what_is_wrong_with_a_short_path(word: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed("fit", "--config", RECIPE, word)
    assert message in str(caught.value)


# ---------------------------------------------------------------------- paths


@pytest.mark.parametrize("recipe", [*recipe_names(), *part_names("streams"), *part_names("methods")])
def test_every_callback_argument_of_a_recipe_resolves(recipe: str) -> None:
    """The recipe's own text is the reference; the values that are found stand where the configuration has them."""
    config = yaml.safe_load(_path(recipe).read_text(encoding="utf-8"))
    callbacks = _with_full_paths(config)["trainer"].setdefault("callbacks", config["trainer"].pop("callbacks+", []))
    known = known_arguments(config)
    for entry in callbacks:
        cls = import_class(entry["class_path"])
        assert {*inspect.signature(cls).parameters} <= {*argument_names(cls)}
        for argument in argument_names(cls):
            found = resolve(f"callbacks.{cls.__name__}.{argument}", known)
            assert (found.cls, found.key[-1]) == (cls, argument)
        for argument, value in (entry.get("init_args") or {}).items():
            assert value_at(config, known[f"callbacks.{cls.__name__}.{argument}"].key) == value
    for owner in ("model", "data.source", "data.scenario"):
        for argument in (value_at(config, owner.split(".")) or {}).get("init_args") or {}:
            assert resolve(f"{owner}.{argument}", known).key[-1] == argument
    assert {"data.batch_size", "trainer.max_epochs"} <= {*known}


def _path(recipe: str) -> Path:
    return next(p for p in RECIPES.rglob(f"{recipe}.yaml"))


def _with_full_paths(value: Any) -> Any:
    """In place: what the parser makes of short names, without the seconds it takes."""
    if isinstance(value, dict) and "class_path" in value and "." not in value["class_path"]:
        modules = (callbacks_module, datamodules, models, targets, lightning.pytorch.loggers)
        found = next(getattr(m, value["class_path"]) for m in modules if hasattr(m, value["class_path"]))
        value["class_path"] = f"{found.__module__}.{found.__qualname__}"
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _with_full_paths(item)
    return value


def test_a_parsed_composition_has_the_paths_of_its_recipe() -> None:
    config = _with_full_paths(yaml.safe_load(_path(RECIPE).read_text(encoding="utf-8")))
    for path, argument in composed().arguments.items():
        if not path.startswith(("trainer.", "data.source", "model.")):
            assert known_arguments(config)[path] == argument


@pytest.mark.parametrize(
    ("short", "path"),
    [
        ("prompt_length", LENGTH),
        ("CODAPrompt.prompt_length", LENGTH),
        ("lr", "model.lr"),
        ("num_tasks", "data.scenario.num_tasks"),
        ("scenario.num_tasks", "data.scenario.num_tasks"),
    ],
)
def test_the_end_of_a_path_is_enough(short: str, path: str) -> None:
    assert resolve(short, composed().arguments).path == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("callbacks.CODAPrompt.promptlength", f"did you mean {LENGTH}"),
        ("callbacks.CodaPrompt.prompt_length", f"did you mean {LENGTH}"),
        ("data.scenario.num_task", "did you mean data.scenario.num_tasks"),
        ("head", "may be callbacks.CODAPrompt.head or callbacks.ContinualEvaluation.head"),
        ("model.zzz", "model has backbone, "),
        ("zzz.zzz", "it has arguments of model, data"),
    ],
)
def test_an_unknown_path_names_the_nearest(path: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(path, composed().arguments)
    assert message in str(caught.value)


# ---------------------------------------------------------------------- the space


@given(st.lists(st.sampled_from(["a", "[1,2]", "{a: 1, b: 2}", "'x,y'", "-3", "(1,[2,3])"]), min_size=1))
def test_values_are_split_at_their_own_commas(parts: list[str]) -> None:
    assert split_values(",".join(parts)) == parts


def test_values_have_the_type_of_the_argument() -> None:
    parameters = space(
        f"{LENGTH}=4,8",
        "model.lr=1e-4..1e-2:log",
        "data.batch_size=8..64",
        "callbacks.CODAPrompt.layers=[0],[0,1,2]",
        "backbone_kwargs=null,{img_size: 32}",
        "drop_last=true,false",
    )
    assert [p.domain for p in parameters] == [
        Choice((4, 8)),
        Range(1e-4, 1e-2, log=True),
        Range(8, 64),
        Choice(([0], [0, 1, 2])),
        Choice((None, {"img_size": 32})),
        Choice((True, False)),
    ]
    assert [p.domain.integer for p in parameters if isinstance(p.domain, Range)] == [False, True]
    assert space("model.lr=1..2")[0].domain.integer is False


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "nothing to sweep; give at least one `--param"),
        ([f"{LENGTH}=4,,8"], "has an empty value"),
        ([f"{LENGTH}=4,x"], f"`{LENGTH}` is 'x'; expected int"),
        (["data.batch_size=4.5,8"], "`data.batch_size` is '4.5'; expected int"),
        (["model.lr=fast"], "`model.lr` is 'fast'; expected float | None"),
        (["data.scenario.num_tasks=many"], "`data.scenario.num_tasks` is 'many'; expected int | None"),
        (["trainer.max_epochs=soon"], "`trainer.max_epochs` is 'soon'"),
        ([f"{LENGTH}=4", "prompt_length=8"], f"`{LENGTH}` is given twice"),
        ([f"{LENGTH}=4,8,4"], "has the value 4 twice"),
        ([f"{LENGTH}=8..4"], "runs from 8 to 4"),
        (["model.lr=0..1:log"], "begins above 0"),
        (["model.lr=1..2:exp"], "has the scale `exp`"),
        (["drop_last=false..true"], "its ends are no numbers"),
    ],
)
def test_one_clear_error(params: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as caught:
        space(*params)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--param", f"{LENGTH}=4"], "there is nothing to sweep; begin with a recipe"),
        (["digits_coda_promt", "--param", f"{LENGTH}=4"], "did you mean digits_coda_prompt"),
        ([RECIPE, "--param", f"{LENGTH}=4", "--local", "0"], "give a whole number of at least 1"),
        ([RECIPE, "--param", f"{LENGTH}=4", "--metric", "class_il/averge_accuracy"], "class_il/average_accuracy"),
        ([RECIPE, "--param", f"{LENGTH}=4", "--metod", "grid"], "metod"),
        ([RECIPE, "--param", f"{LENGTH}=4", "--val-split", "0"], "never measured on the test split"),
        ([RECIPE, "--param", f"{LENGTH}=4", "--final-seeds", "1001"], "the seeds [1000] are meant for tuning and for"),
        ([RECIPE, "--param", f"{LENGTH}=4", "--tuning-seeds", "2"], "needs `--local`"),
        ([RECIPE, "--param", "model.lr=1..2", "--method", "grid"], "a grid needs lists of values, but model.lr"),
        ([RECIPE, "--param", "model.lr=1..2", "--method", "grid", "--local", "1"], "a grid needs lists of values"),
        ([RECIPE, "--param", "data.seed=1,2"], "the protocol sets it"),
        ([RECIPE, "--param", "data.val_split=0.1,0.2"], "the protocol sets it"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "sweep RECIPE --param" in capsys.readouterr().out
    assert main(["sweep", "--help"]) == 0
    assert "--tune-on order|classes" in capsys.readouterr().out


# ---------------------------------------------------------------------- W&B


def violations(content: dict[str, Any]) -> list[str]:
    """By the schema in W&B's own package, which cannot be imported beside NumPy 2 everywhere, so it is only read."""
    spec = find_spec("sweeps")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("W&B's schema is in its package `sweeps`: pip install --no-deps sweeps")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(spec.submodule_search_locations[0], "config", "schema.json").read_text())
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(content)]


EVERYTHING = (
    f"{LENGTH}=4,8",
    "model.lr=1e-4..1e-2:log",
    "model.weight_decay=0..0.1",
    "data.batch_size=8..64",
    "data.eval_batch_size=8..512:log",
    "callbacks.CODAPrompt.layers=[0],[0,1,2]",
    "backbone_kwargs=null,{img_size: null}",
    "drop_last=true,false",
)


def sweep_file(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["sweep", *words]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_the_file_is_accepted_by_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    content = sweep_file(capsys, RECIPE, "--param", f"{LENGTH}=4,8", "--out", "of/sweep.yaml")
    assert yaml.safe_load(Path("of/sweep.yaml").read_text()) == content
    assert (content["method"], content["metric"]["goal"]) == ("grid", "maximize")
    assert content["parameters"] == {LENGTH: {"values": [4, 8]}}
    assert violations(content) == []
    assert violations({**content, "parameters": {LENGTH: {"vals": []}}})  # the check can fail
    everything = sweep_config(["fit"], space(*EVERYTHING), "class_il/forgetting", "minimize")
    assert everything["method"] == "bayes"
    assert violations(everything) == []


def agent_words(content: dict[str, Any], pick: Callable[[dict[str, Any]], Any]) -> list[str]:
    """The command line as `wandb agent` makes it of a sweep file; wandb's own functions do it."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    values = {path: {"value": pick(entry)} for path, entry in content["parameters"].items()}
    filled = {**create_sweep_command_args({"args": values}), "program": [content["program"]], "env": ["/usr/bin/env"]}
    words: list[str] = []
    for chunk in create_sweep_command(list(content["command"])):
        words += filled[chunk[2:-1]] if chunk.startswith("${") else [chunk]
    assert words[:2] == ["/usr/bin/env", "lightning-cl"]
    return words[2:]


def lowest(entry: dict[str, Any]) -> Any:
    return entry["values"][0] if "values" in entry else entry["min"]


def highest(entry: dict[str, Any]) -> Any:
    return entry["values"][-1] if "values" in entry else entry["max"]


@pytest.mark.parametrize("pick", [lowest, highest])
def test_the_agents_words_mean_the_values(
    pick: Callable[[dict[str, Any]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for param in EVERYTHING for word in ("--param", param)]
    content = sweep_file(capsys, RECIPE, *words)
    config = parsed(*agent_words(content, pick))
    for parameter in space(*EVERYTHING):
        domain = parameter.domain
        ends = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        assert value_at(config, parameter.argument.key) == ends[0 if pick is lowest else -1], parameter.path
    assert config["data"]["seed"] == config["seed_everything"] == 1000
    assert config["data"]["val_split"] == 0.2


@pytest.mark.parametrize("on", ["order", "classes"])
def test_the_files_command_line_runs(on: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = sweep_file(capsys, RECIPE, "--param", f"{LENGTH}=4,8", "--tune-on", on)
    assert main([*agent_words(content, highest), "--trainer.fast_dev_run", "1"]) == 0


def test_a_composition_is_swept(capsys: pytest.CaptureFixture[str]) -> None:
    content = sweep_file(capsys, "digits", "--config", "er", "--param", "memory_size=100..400", "--method", "random")
    assert content["parameters"] == {
        "callbacks.ExperienceReplay.memory_size": {"distribution": "int_uniform", "min": 100, "max": 400}
    }
    assert main([*agent_words(content, lowest), "--trainer.fast_dev_run", "1"]) == 0


def test_the_metrics_are_those_that_are_logged() -> None:
    from lightning_cl.callbacks.evaluation import continual_evaluation

    assert {*METRICS} == {f"{space_}/{name}" for space_ in SPACES for name in continual_evaluation._LOGGED}


def test_whole_numbers_on_a_logarithmic_scale() -> None:
    assert log_integers(1, 4) == [1, 2, 3, 4]
    values = log_integers(8, 512)
    assert (values[0], values[-1], len(values)) == (8, 512, 16)


# ---------------------------------------------------------------------- trials here


class Learner:
    """Stands in for runs: the accuracy is a known function of the prompt length, another one on the test split.

    Args:
        at: Called with the config of every run.
    """

    def __init__(self, at: Callable[[dict[str, Any]], None] = lambda config: None) -> None:
        self.at, self.configs, self.stopped = at, [], False

    def __call__(self, config: Path, log: Path) -> int:
        content = yaml.safe_load(config.read_text())
        self.configs.append(content)
        log.write_text("lightning-cl: the loss is not a number\n")
        self.at(content)
        length = content["trainer"]["callbacks"][0]["init_args"]["prompt_length"]
        if length == 6:
            return 2
        seed = content["data"]["seed"]
        accuracy = (0.9 - 0.05 * abs(length - 8) if seed >= 1000 else 0.5) + 0.01 * (seed % 1000)
        folder = content["trainer"]["logger"]["init_args"]
        path = Path(folder["save_dir"], folder["name"], folder["version"], FILE_NAME)
        path.parent.mkdir(parents=True)
        path.write_text(to_json(ContinualReport(class_il=torch.full((2, 2), accuracy).tril()).to_dict()))
        return 0

    def stop(self) -> None:
        self.stopped = True


def local(learner: Any, *words: str, params: tuple[str, ...] = (f"{LENGTH}=4,6,8,10",)) -> int:
    given_ = [word for param in params for word in ("--param", param)]
    return sweep.main(*options.parse(["sweep", RECIPE, *given_, "--folder", "s", *words]), False, learner)


def lengths(learner: Learner) -> list[int]:
    return [c["trainer"]["callbacks"][0]["init_args"]["prompt_length"] for c in learner.configs]


def table() -> list[dict[str, str]]:
    with Path("s/results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_is_found_and_evaluated_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    learner = Learner()
    assert local(learner, "--local", "9", "--final-seeds", "2") == 0
    assert lengths(learner) == [4, 6, 8, 10, 8, 8]  # the whole grid, a failed one among it, then the best, two seeds
    rows = table()
    assert [row[LENGTH] for row in rows] == ["4", "6", "8", "10"]
    measured = [row["class_il/average_accuracy"] for row in rows]
    assert measured[1] == ""
    assert [float(v) for v in measured if v] == [pytest.approx(v) for v in (0.7, 0.9, 0.8)]
    assert float(rows[2]["seed_1000"]) == pytest.approx(0.9)
    assert "the loss is not a number" in rows[1]["error"]
    final = json.loads(Path("s/final.json").read_text())
    assert final["results"] == {"0": pytest.approx(0.5), "1": pytest.approx(0.51)}
    assert final["mean"] == pytest.approx(0.505)
    assert final["standard_deviation"] == pytest.approx(0.01 / 2**0.5)
    assert final["objective_on_tuning_stream"] == pytest.approx(0.9)
    assert (final["trials"], final["failed_trials"], final["tuned"]) == (4, 1, {LENGTH: 8})
    assert yaml.safe_load(Path("s/best.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]["prompt_length"] == 8


def test_trials_see_no_test_split_and_the_phases_name_each_other() -> None:
    learner = Learner()
    assert local(learner, "--local", "1", "--final-seeds", "1", params=(f"{LENGTH}=4",)) == 0
    tuning, evaluation = learner.configs
    assert (tuning["data"]["val_split"], tuning["data"]["seed"], tuning["seed_everything"]) == (0.2, 1000, 1000)
    assert (evaluation["data"]["val_split"], evaluation["data"]["seed"], evaluation["seed_everything"]) == (0.0, 0, 0)
    streams = [composed().stream(config) for config in (tuning, evaluation)]
    own, other = (config["trainer"]["callbacks"][-1]["init_args"] for config in (tuning, evaluation))
    assert (own["phase"], own["other_streams"]) == ("tuning", [streams[1].info.fingerprint])
    assert (other["phase"], other["other_streams"]) == ("evaluation", [streams[0].info.fingerprint])
    assert [stream.eval_data("val").split for stream in streams] == ["train", "test"]
    assert streams[0].info.classes_per_task != streams[1].info.classes_per_task
    names = [c["class_path"].rpartition(".")[2] for c in tuning["trainer"]["callbacks"]]
    assert names == ["CODAPrompt", "ContinualEvaluation", "TwoPhaseProtocol"]  # trials leave no checkpoint
    drawn = [c["trainer"]["callbacks"][1].get("init_args", {}).get("report") for c in (tuning, evaluation)]
    assert drawn[0] == "numbers" != drawn[1]  # nor pictures


def test_task_ends_are_validated_whatever_the_epochs() -> None:
    learner = Learner()
    assert local(learner, "--local", "2", "--final-seeds", "1", params=("data.epochs_per_task=2,7",)) == 0
    run = [
        (config["data"]["epochs_per_task"], config["trainer"]["check_val_every_n_epoch"]) for config in learner.configs
    ]
    assert run == [(2, 2), (7, 7), (2, 2)]


def test_a_sweep_goes_on_where_it_stopped() -> None:
    first, second, third = Learner(), Learner(), Learner()
    assert local(first, "--local", "2", "--final-seeds", "0") == 0
    assert local(second, "--local", "4", "--final-seeds", "0") == 0
    assert sorted(lengths(first) + lengths(second)) == [4, 6, 8, 10]
    assert local(third, "--local", "4", "--final-seeds", "0") == 0
    assert lengths(third) == []
    with pytest.raises(UsageError, match="s holds another sweep, with other parameters"):
        local(third, "--local", "4", params=(f"{LENGTH}=4,8",))


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_a_range_is_searched_and_goes_on(method: str) -> None:
    params = ("model.lr=1e-4..1e-2:log", f"{LENGTH}=8..10")
    seen = Learner()
    for count in ("3", "5"):
        assert local(seen, "--local", count, "--final-seeds", "0", "--method", method, params=params) == 0
    rates = [config["model"]["init_args"]["lr"] for config in seen.configs]
    assert len({*rates}) == 5
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert {*lengths(seen)} <= {8, 9, 10}


def test_ctrl_c_keeps_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(config: dict[str, Any]) -> None:
        if config["trainer"]["callbacks"][0]["init_args"]["prompt_length"] == 8:
            raise KeyboardInterrupt

    learner, later = Learner(interrupt), Learner()
    assert local(learner, "--local", "4", "--final-seeds", "0") == 130
    assert learner.stopped
    assert "interrupted after 2 trials" in capsys.readouterr().err
    assert [row[LENGTH] for row in table()] == ["4", "6"]
    assert Path("s/best.yaml").is_file()
    assert local(later, "--local", "4", "--final-seeds", "0") == 0
    assert sorted(lengths(later)) == [8, 10]  # the one that was running is tried again
    assert sorted(int(row[LENGTH]) for row in table()) == [4, 6, 8, 10]


def test_a_scheduler_that_stops_the_final_runs_leaves_none_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM in the second phase; the same command makes the final runs that are missing."""

    def terminate(config: dict[str, Any]) -> None:
        if config["data"]["seed"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    learner, later = Learner(terminate), Learner()
    assert local(learner, "--local", "4", "--final-seeds", "3") == 130
    assert learner.stopped
    assert "interrupted after 4 trials" in capsys.readouterr().err
    assert list(json.loads(Path("s/final.json").read_text())["results"]) == ["0"]
    assert local(later, "--local", "4", "--final-seeds", "3") == 0
    assert [config["data"]["seed"] for config in later.configs] == [1, 2]


def test_all_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert local(Learner(), "--local", "1", params=(f"{LENGTH}=6",)) == 1
    assert "all 1 trials failed" in capsys.readouterr().err
    assert not Path("s/final.json").exists()


def test_several_class_orders_and_jobs() -> None:
    learner = Learner()
    words = ["--local", "3", "--jobs", "2", "--tuning-seeds", "2", "--final-seeds", "0"]
    assert local(learner, *words, params=(f"{LENGTH}=4,8,10",)) == 0
    assert sorted(lengths(learner)) == [4, 4, 8, 8, 10, 10]
    row = next(row for row in table() if row[LENGTH] == "8")
    assert (float(row["seed_1000"]), float(row["seed_1001"])) == (pytest.approx(0.9), pytest.approx(0.91))
    assert float(row["class_il/average_accuracy"]) == pytest.approx(0.905)


def test_the_evaluation_stream_is_used_once() -> None:
    params = (f"{LENGTH}=4,10",)
    assert local(Learner(), "--local", "1", "--final-seeds", "1", "--seed", "1", params=params) == 0
    before = json.loads(Path("s/final.json").read_text())
    words = ["--local", "2", "--final-seeds", "1", "--seed", "1"]
    assert before["values"] == {LENGTH: 4}
    with pytest.raises(UsageError, match="was evaluated already"):
        local(Learner(), *words, params=params)
    assert json.loads(Path("s/final.json").read_text()) == before
    assert local(Learner(), *words, "--evaluate-again", params=params) == 0
    after = json.loads(Path("s/final.json").read_text())
    assert after["values"] == {LENGTH: 10}
    assert after["earlier"] == [{"values": before["values"], "results": before["results"]}]
    assert after["earlier_evaluations"] == 1


def test_the_best_of_some_trials() -> None:
    trials = [Trial(0, {}, (0.5,)), Trial(1, {}), Trial(2, {}, (0.7, 0.9)), Trial(3, {}, (0.8,))]
    assert best(trials, "maximize").number == 2
    assert best(trials, "minimize").number == 0
    assert best(trials[1:2], "maximize") is None
    assert grid(space(f"{LENGTH}=4,8", "drop_last=true,false")) == [
        {LENGTH: length, "data.drop_last": drop} for length in (4, 8) for drop in (True, False)
    ]


# ---------------------------------------------------------------------- the phases are apart


def test_an_order_that_no_seed_changes_cannot_be_tuned_on() -> None:
    learner = Learner()
    with pytest.raises(UsageError, match="no other class order to tune on; use `--tune-on classes`"):
        local(learner, "--local", "1", "--data.scenario.class_order", "natural")
    assert learner.configs == []
    words = ("--data.scenario.class_order", "natural", "--tune-on", "classes", "--final-seeds", "1")
    assert local(learner, "--local", "1", *words, params=(f"{LENGTH}=4",)) == 0
    tuning, evaluation = (composed().stream(config).info.class_names for config in learner.configs)
    assert not {*tuning} & {*evaluation}
    assert len(tuning) == len(evaluation) == 5


def test_a_seed_of_the_scenario_does_not_undo_the_phases() -> None:
    learner = Learner()
    words = ("--local", "1", "--final-seeds", "1", "--data.scenario.seed", "3")
    assert local(learner, *words, params=(f"{LENGTH}=4",)) == 0
    assert [config["data"]["scenario"]["init_args"]["seed"] for config in learner.configs] == [1000, 0]


def test_streams_are_checked_for_every_trial_that_changes_them() -> None:
    learner = Learner()
    words = ("--local", "2", "--final-seeds", "0")
    assert local(learner, *words, params=("data.scenario.class_order=natural,shuffled",)) == 0
    assert len(learner.configs) == 1
    assert "no other class order" in table()[0]["error"]


def test_phases_refuse_shared_seeds() -> None:
    with pytest.raises(UsageError, match=r"the seeds \[3\]"):
        Phases("order", (3,), (2, 3))


def test_the_guard_refuses_the_evaluation_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """In the run itself, whatever started it."""
    words = ["fit", "--config", RECIPE, "--trainer.fast_dev_run", "1"]
    words += ["--trainer.callbacks+", "TwoPhaseProtocol"]
    fingerprint = composed().stream(composed().config).info.fingerprint
    assert main([*words, "--trainer.callbacks.phase", "tuning"]) == 2
    assert "by results on the test split; hold out training data" in capsys.readouterr().err
    held_out = ["--trainer.callbacks.phase", "tuning", "--data.val_split", "0.2"]
    assert main([*words, *held_out, "--trainer.callbacks.other_streams", f"[{fingerprint}]"]) == 0
    evaluation = ["--trainer.callbacks.phase", "evaluation", "--trainer.callbacks.other_streams", f"[{fingerprint}]"]
    assert main([*words, *evaluation]) == 2
    assert f"the stream {fingerprint[:12]} is one of the tuning phase" in capsys.readouterr().err
    with pytest.raises(ValueError, match='give "tuning" or "evaluation"'):
        TwoPhaseProtocol("test")
    assert issubclass(ProtocolError, ValueError)


# ---------------------------------------------------------------------- real runs


class Here:
    """Runs in this process."""

    def __call__(self, config: Path, log: Path) -> int:
        with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            return main(["fit", "--config", str(config)])

    def stop(self) -> None:
        pass


@pytest.mark.slow
def test_two_trials_and_a_final_run() -> None:
    words = ("--local", "2", "--final-seeds", "1", "--trainer.callbacks+", "ProtocolGuard", *CUT)
    assert local(Here(), *words, params=(f"{LENGTH}=4,8",)) == 0
    rows = table()
    assert [row["error"] for row in rows] == ["", ""]
    report = read("s/final/seed_0")
    facts = report.facts["TwoPhaseProtocol"]
    tuned = read("s/trials/0000/seed_1000")
    assert facts["tuning_streams"] == [tuned.stream_hash]
    assert tuned.facts["TwoPhaseProtocol"]["other_streams"] == [report.stream_hash]
    assert (facts["phase"], facts["trials"]) == ("evaluation", 2)
    assert report.methods["CODAPrompt"]["prompt_length"] == facts["tuned"][LENGTH]
    assert "the matrix was measured on the test split" in report.notes
    assert "the matrix was measured on held-out training data" in tuned.notes
    declared = next(check for check in report.protocol["checks"] if check["name"] == "tuning")
    assert "class order of seed 1000" in declared["message"]


@pytest.mark.slow
def test_processes_of_their_own_and_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_cl.cli", "sweep", RECIPE, "--param", f"{LENGTH}=4,8,x"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, "expected int" in refused.stderr) == (2, True)
    command[-1] = f"{LENGTH}=4,8"
    command += ["--local", "2", "--jobs", "2", "--folder", "s", "--final-seeds", "0", *CUT]
    process = subprocess.Popen(
        [*command, "--data.epochs_per_task", "500"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what it puts into the background, tests too, without Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not list(Path("s").glob("trials/*/*/metrics.csv")) and process.poll() is None:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)  # to the sweep alone: it ends its trials itself
    process.wait(timeout=120)
    assert process.returncode == 130
    assert table() == []
    assert subprocess.run([*command, "--folder", "t"], check=False).returncode == 0
    with Path("t/results.csv").open(newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == ["", ""]
