"""A method file holds what was learned and nothing else, and goes only into the model that it belongs to."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from conformance.methods import METHODS, make, takes
from conformance.modules import PlainModule
from lightning.pytorch import seed_everything
from safetensors import safe_open
from safetensors.torch import save_file
from trained import base_model, images, restored

import lightning_cl
from lightning_cl.callbacks import (
    L2P,
    CODAPrompt,
    FineTuning,
    OnePrompt,
    PrototypeClassifier,
    VirtualOutlierRegularizer,
)
from lightning_cl.export_method import VERSION, checksum

pytestmark = pytest.mark.filterwarnings("ignore")
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


@pytest.fixture
def shipped(tmp_path):
    """The file of a trained OnePrompt, and a way to change its description or tensors."""
    path = tmp_path / "method.safetensors"
    lightning_cl.save_method(path, restored(OnePrompt))

    def rewritten(tensors=None, **changes):
        with safe_open(path, "pt") as file:
            description = json.loads(file.metadata()["lightning_cl"])
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tensors = kept if tensors is None else tensors(kept)
        changed = {**description, "checksum": checksum(tensors), **changes}
        save_file(tensors, tmp_path / "changed.safetensors", metadata={"lightning_cl": json.dumps(changed)})
        return tmp_path / "changed.safetensors"

    return path, rewritten


@methods
@pytest.mark.parametrize("given", [False, True], ids=["rebuilt", "callbacks"])
@torch.no_grad()
def test_a_fresh_model_predicts_the_same_bits(method, given, tmp_path):
    trained, path = restored(method), tmp_path / "method.safetensors"
    lightning_cl.save_method(path, trained)
    loaded = lightning_cl.load_method(path, base_model(method=method), [make(method)] if given else None)
    assert not loaded.training
    if method.needs_task_identity:
        loaded.continual.task = trained.continual.task = 1
    assert torch.equal(loaded(images(7)), trained(images(7)))
    expected, state = trained.state_dict(), loaded.state_dict()
    assert expected.keys() == state.keys()
    assert [name for name, value in expected.items() if not torch.equal(state[name], value)] == []
    assert loaded.continual.info == trained.continual.info  # with the class names


@methods
def test_the_file_holds_no_frozen_weight_and_no_pickle(method, tmp_path):
    trained, path = restored(method), tmp_path / "method.safetensors"
    lightning_cl.save_method(path, trained)
    frozen = {
        name
        for name, p in trained.named_parameters()
        if not p.requires_grad
        and name in dict(base_model(method=method).named_parameters())
        and not name.startswith(trained.continual.head_path)
    }
    with safe_open(path, "pt") as file:  # would not open a pickle
        assert set(file.keys()) == trained.state_dict().keys() - frozen
        description = json.loads(file.metadata()["lightning_cl"])
    if takes(method, "backbone"):  # such a method freezes it
        assert frozen
    assert description["tensors"].keys() == trained.state_dict().keys() - frozen
    assert description["info"]["class_names"] == [str(c) for c in range(6)]
    assert [m["state_key"] for m in description["methods"]] == [method.state_key]


def test_prompts_are_small(tmp_path):
    trained, path = restored(L2P), tmp_path / "method.safetensors"
    lightning_cl.save_method(path, trained)
    learned = trained.prompts.prompts.numel() + trained.prompts.keys.numel() + trained.net.head.weight.numel() + 6
    assert path.stat().st_size < 4 * learned + 8000  # the description
    assert path.stat().st_size < 4 * sum(p.numel() for p in trained.parameters()) / 4


def test_methods_that_stack_go_together(tmp_path):
    seed_everything(0, verbose=False)
    model, info = base_model(), restored(OnePrompt).continual.info
    for callback in (CODAPrompt(pool_size=6, prompt_length=2, layers=(0, 2)), VirtualOutlierRegularizer(weight=0.3)):
        callback.attach_once(model, info)
    model.prompts.start_task(0)
    lightning_cl.save_method(tmp_path / "two", model)
    loaded = lightning_cl.load_method(tmp_path / "two", base_model())
    assert loaded.continual.methods == ["lightning_cl.CODAPrompt", "lightning_cl.VirtualOutlierRegularizer"]
    assert loaded.prompts.layers == (0, 2)
    assert loaded.continual.parts["virtualoutlierregularizer"].method.weight == 0.3
    assert torch.equal(loaded(images()), model.eval()(images()))


def test_a_head_that_is_not_used_may_be_another(tmp_path):
    path = tmp_path / "method"
    trained = base_model()
    PrototypeClassifier().attach_once(trained, restored(OnePrompt).continual.info)
    trained.continual_head.requires_grad_(False)
    trained.continual.trained_parameters = frozenset()
    trained.prototypes.update(torch.randn(12, 32), torch.arange(12) % 6)
    lightning_cl.save_method(path, trained)
    base = base_model()
    base.net.head.reset_parameters()
    assert torch.equal(lightning_cl.load_method(path, base)(images()), trained(images()))


def test_a_model_that_was_frozen_for_inference_still_ships_its_head(tmp_path):
    trained = restored(OnePrompt)
    trained.freeze()
    lightning_cl.save_method(tmp_path / "method", trained)
    loaded = lightning_cl.load_method(tmp_path / "method", base_model())
    assert torch.equal(loaded(images()), trained(images()))


# ---------------------------------------------------------------------- what is refused


def test_other_weights_are_refused_with_both_fingerprints(shipped):
    path, _ = shipped
    with pytest.raises(ValueError, match=r"have the fingerprint [0-9a-f]{12}, but this model's have [0-9a-f]{12}") as e:
        lightning_cl.load_method(path, base_model(seed=1))
    assert len({word for word in str(e.value).replace(",", " ").replace(";", " ").split() if len(word) == 12}) == 2
    almost = base_model()
    with torch.no_grad():
        almost.net.blocks[1].mlp.fc1.bias[3] += 1e-6
    with pytest.raises(ValueError, match="fingerprint"):
        lightning_cl.load_method(path, almost)


def test_another_architecture_is_refused(shipped):
    path, _ = shipped

    class Wider(PlainModule):
        def __init__(self):
            super().__init__()
            self.extra = torch.nn.Linear(2, 2)
            self.net.cls_token = torch.nn.Parameter(torch.zeros(1, 1, 16))
            del self.net.norm

    with pytest.raises(ValueError, match="another architecture") as error:
        lightning_cl.load_method(path, Wider())
    for part in ("missing here: net.norm.bias, net.norm.weight", "unknown to the file: extra.bias", "(1, 1, 16) here"):
        assert part in str(error.value)


def test_a_damaged_file_is_refused(shipped, tmp_path):
    path, _ = shipped
    content = path.read_bytes()
    for name, damaged in (
        ("short", content[:-10]),
        ("torn", content[: len(content) // 3]),
        ("empty", b""),
        ("text", b"not at all"),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is no method file, or it is damaged"):
            lightning_cl.load_method(tmp_path / name, base_model())
    flipped = bytearray(content)
    flipped[-5] ^= 1  # a bit in the last tensor, which safetensors does not notice
    (tmp_path / "flipped").write_bytes(flipped)
    with pytest.raises(ValueError, match=r"is damaged: its tensors have the hash"):
        lightning_cl.load_method(tmp_path / "flipped", base_model())


def test_a_disk_that_is_full_leaves_the_file_before(shipped, tmp_path, monkeypatch):
    path, _ = shipped
    before, model = path.read_bytes(), restored(CODAPrompt)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        lightning_cl.save_method(path, model)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_pickle_and_a_foreign_safetensors_file_are_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "checkpoint.ckpt")
    with pytest.raises(ValueError, match="is no method file"):
        lightning_cl.load_method(tmp_path / "checkpoint.ckpt", base_model())
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="is a safetensors file, but no method file"):
        lightning_cl.load_method(tmp_path / "plain.safetensors", base_model())
    with pytest.raises(FileNotFoundError):
        lightning_cl.load_method(tmp_path / "nowhere", base_model())


def test_a_newer_version_is_refused(shipped):
    _, rewritten = shipped
    with pytest.raises(
        ValueError, match=rf"is of version {VERSION + 1} .*up to version {VERSION}; install a newer one"
    ):
        lightning_cl.load_method(rewritten(version=VERSION + 1), base_model())


PREFIXES = "continual.parts.oneprompt.provider.prefixes"


def test_missing_and_left_over_tensors_are_refused(shipped):
    _, rewritten = shipped
    less = rewritten(lambda tensors: {n: t for n, t in tensors.items() if n != f"{PREFIXES}.1"})
    with pytest.raises(ValueError, match=rf"missing: {PREFIXES}\.1, left over: none"):
        lightning_cl.load_method(less, base_model())
    more = rewritten(lambda tensors: {**tensors, "prompts.other": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing: none, left over: prompts\.other"):
        lightning_cl.load_method(more, base_model())
    other = rewritten(lambda tensors: {**tensors, f"{PREFIXES}.1": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"do not fit the model with its methods: .*size mismatch"):
        lightning_cl.load_method(other, base_model())


def test_only_methods_of_the_package_are_rebuilt(shipped):
    _, rewritten = shipped
    for name in ("os.system", "ContinualEvaluation", "Trainer", "base"):
        path = rewritten(methods=[{"state_key": "lightning_cl.OnePrompt", "class": name, "arguments": {}}])
        with pytest.raises(ValueError, match=r"cannot be rebuilt .* none of this package; pass `callbacks="):
            lightning_cl.load_method(path, base_model())


def test_a_users_own_method_is_loaded_with_its_callback(tmp_path):
    class Mine(OnePrompt):
        def __init__(self, lengths, make_range=tuple):
            super().__init__(layers=(0, 1), lengths=lengths)
            self.make_range = make_range

    model = base_model()
    Mine(2).attach_once(model, restored(OnePrompt).continual.info)
    lightning_cl.save_method(tmp_path / "mine", model)
    with pytest.raises(ValueError, match=r"Mine cannot be rebuilt .*`callbacks=\[Mine\(\.\.\.\)\]`"):
        lightning_cl.load_method(tmp_path / "mine", base_model())
    loaded = lightning_cl.load_method(tmp_path / "mine", base_model(), [Mine(2)])
    assert torch.equal(loaded(images()), model.eval()(images()))


def test_other_callbacks_and_used_models_are_refused(shipped):
    path, _ = shipped
    with pytest.raises(ValueError, match=r"holds OnePrompt, but `callbacks` has FineTuning"):
        lightning_cl.load_method(path, base_model(), [FineTuning()])
    used = base_model()
    PrototypeClassifier().attach_once(used, restored(OnePrompt).continual.info)
    with pytest.raises(ValueError, match="give a fresh model"):
        lightning_cl.load_method(path, used)


def test_a_model_without_a_method_is_not_shipped(tmp_path):
    with pytest.raises(ValueError, match="has no continual-learning method"):
        lightning_cl.save_method(tmp_path / "none", base_model())


def test_the_checksum_is_of_names_types_shapes_and_values():
    base = {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.bool)}
    same = {"b": torch.ones(2, dtype=torch.bool), "a": torch.arange(12.0)[::2] / 2}
    assert checksum(base) == checksum(same)
    others = [
        {**base, "a": torch.arange(6.0).view(2, 3)},
        {**base, "a": torch.arange(6.0).double()},
        {"c": base["a"], "b": base["b"]},
        {**base, "b": torch.tensor([True, False])},
        {"a": base["a"]},
        {**base, "c": torch.empty(0)},
    ]
    assert len({checksum(tensors) for tensors in (base, *others)}) == 1 + len(others)
