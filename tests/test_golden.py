"""What an earlier version saved is read by this one; what a newer one saved, or what belongs elsewhere, is refused."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import lightning_cl
import lightning_cl.callbacks
from lightning_cl.callbacks import CODAPrompt, ExperienceReplay, FineTuning, ProtocolGuard
from lightning_cl.versions import check_version

pytestmark = pytest.mark.filterwarnings("ignore")
FOLDER = Path(__file__).parent / "data" / "golden"


def _load_maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_golden", FOLDER / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _load_maker()
FILES = sorted(FOLDER.glob("*.ckpt"))
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def methods_of(path: Path) -> list[Any]:
    return golden.METHODS[path.stem.partition("-")[2]]()


def expected(path: Path) -> dict[str, Any]:
    return torch.load(path.with_suffix(".pt"), weights_only=True)


# ---------------------------------------------------------------------- what earlier versions saved


def test_there_are_golden_files_and_they_are_small():
    assert {"0.1.0-coda_prompt", "0.1.0-prototypes"} <= {path.stem for path in FILES}
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 200_000


@each
def test_a_checkpoint_holds_tensors_and_plain_values(path):
    torch.load(path, weights_only=True)


@each
@torch.no_grad()
def test_a_checkpoint_is_restored(path):
    model = lightning_cl.restore(path, golden.GoldenModel(), methods_of(path))
    assert_close(model(golden.images()), expected(path)["restored"], rtol=1e-4, atol=1e-5)


@each
@torch.no_grad()
def test_a_method_file_is_loaded(path):
    model = lightning_cl.load_method(path.with_suffix(".safetensors"), golden.GoldenModel())
    assert_close(model(golden.images()), expected(path)["restored"], rtol=1e-4, atol=1e-5)


@each
def test_a_run_goes_on_and_ends_as_it_would_have(path):
    trainer, wanted = golden.fit(methods_of(path), path), expected(path)
    assert trainer.global_step == 12
    result = golden.results(trainer)
    assert_close(result["final"], wanted["final"], rtol=1e-3, atol=1e-4)
    assert torch.equal(result["correct"], wanted["correct"])


@each
def test_the_hash_of_the_stream_is_the_same_on_every_machine(path):
    assert golden.stream().info.fingerprint == expected(path)["hash"]


def test_the_script_still_makes_what_is_read(tmp_path):
    golden.make(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3 * len(golden.METHODS)
    for path in tmp_path.glob("*.ckpt"):
        old = torch.load(FOLDER / f"0.1.0-{path.stem.partition('-')[2]}.pt", weights_only=True)
        assert_close(expected(path)["final"], old["final"], rtol=1e-3, atol=1e-4)
    with pytest.raises(FileExistsError, match="never made again"):
        golden.make(tmp_path)


# ---------------------------------------------------------------------- what belongs elsewhere


def refused(path: Path, **options: Any) -> str:
    """The message; the old hash and the new one are in it."""
    with pytest.raises(ValueError, match="another stream") as error:
        golden.fit(options.pop("methods", None) or methods_of(path), path, **options)
    for fingerprint in (expected(path)["hash"], golden.stream(**options).info.fingerprint):
        assert fingerprint[:12] in str(error.value)
    return str(error.value)


@each
def test_another_class_order_is_refused(path):
    message = refused(path, class_order=(0, 1, 2, 3))
    assert "task 0 holds the classes [0, 2] in the checkpoint and [0, 1] here" in message


@each
def test_other_class_names_are_refused(path):
    message = refused(path, class_names=("ant", "bee", "dog", "cat"))
    assert "class 2 is 'cat' in the checkpoint and 'dog' here" in message


def test_other_class_names_are_refused_without_a_method(tmp_path):
    golden.fit([], stop=[golden.Save(tmp_path / "plain.ckpt")])
    with pytest.raises(ValueError, match="class 0 is 'ant' in the checkpoint and 'bat' here"):
        golden.fit([], tmp_path / "plain.ckpt", class_names=("bat", *golden.NAMES[1:]))


@each
def test_other_methods_are_refused(path):
    mine = type(methods_of(path)[0]).__name__
    with pytest.raises(ValueError, match=f"made with {mine}, but this module has FineTuning"):
        golden.fit([FineTuning()], path)
    with pytest.raises(ValueError, match=f"made with {mine}, but .* has {mine} [+] FineTuning"):
        lightning_cl.restore(path, golden.GoldenModel(), [*methods_of(path), FineTuning()])
    with pytest.raises(ValueError, match="made with a continual-learning method, but this Trainer has none"):
        golden.fit([], path)


# ---------------------------------------------------------------------- versions


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A checkpoint with as many states as one run can have."""
    path = tmp_path_factory.mktemp("rich") / "rich.ckpt"
    golden.fit(company(), stop=[golden.Save(path)])
    return path


def company() -> list[Any]:
    coda = CODAPrompt(pool_size=4, prompt_length=2, layers=(0, 1), train_mask="seen")
    anytime = lightning_cl.callbacks.AnytimeEvaluation(report=False)
    return [coda, ExperienceReplay(12, batch_size=4), anytime, ProtocolGuard()]


def versioned(saved: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state of the package in a checkpoint, by its place."""
    yield "the run", saved["lightning_cl"]
    yield "the stream's description", saved["lightning_cl"]["info"]
    yield "the stream", saved["ContinualDataModule"]
    for loader in saved["loops"]["fit_loop"]["state_dict"]["combined_loader"]:
        yield "the training loader", loader
    for key, state in saved["callbacks"].items():
        if key.startswith("lightning_cl.") and state:
            yield key.removeprefix("lightning_cl."), state


PLACES = [
    "the run",
    "the stream's description",
    "the stream",
    "the training loader",
    "ContinualEvaluation",
    "AnytimeEvaluation",
    "ProtocolGuard",
    "ExperienceReplay",
]


def test_every_state_has_a_version(rich):
    found = dict(versioned(torch.load(rich, weights_only=True)))
    assert set(found) == set(PLACES)
    assert {name: state.get("version") for name, state in found.items()} == dict.fromkeys(PLACES, 1)


def test_every_callback_that_saves_something_says_its_version():
    for name in lightning_cl.callbacks.__all__:
        cls = getattr(lightning_cl.callbacks, name)
        required = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind < 2]
        if not required and not inspect.isabstract(cls):
            state = cls().state_dict()
            assert not state or state.get("version") == 1, name


@pytest.mark.parametrize("place", PLACES)
def test_a_newer_version_is_refused(rich, place, tmp_path):
    saved = torch.load(rich, weights_only=True)
    dict(versioned(saved))[place]["version"] = 7
    torch.save(saved, tmp_path / "newer.ckpt")
    words = rf"the state of {place} is of version 7, but lightning_cl .* knows versions up to 1; .* install that"
    with pytest.raises(ValueError, match=words):
        golden.fit(company(), tmp_path / "newer.ckpt")


def test_restoring_refuses_newer_versions(rich, tmp_path):
    for place in ("the run", "the stream's description", "ExperienceReplay"):
        saved = torch.load(rich, weights_only=True)
        dict(versioned(saved))[place]["version"] = 2
        torch.save(saved, tmp_path / "newer.ckpt")
        with pytest.raises(ValueError, match=f"the state of {place} is of version 2"):
            lightning_cl.restore(tmp_path / "newer.ckpt", golden.GoldenModel(), company())


def test_a_state_without_a_version_is_of_the_first():
    check_version({}, 1, "it")
    check_version({"version": 2}, 2, "it")
    with pytest.raises(ValueError, match="the state of it is of version 3"):
        check_version({"version": 3}, 2, "it")
