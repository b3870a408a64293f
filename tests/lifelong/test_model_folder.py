"""Model folders: what is there is whole, what is damaged is said, what was stopped goes on."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from lightning_cl.lifelong import create, load
from lightning_cl.lifelong.call import Call, unfinished_call
from lightning_cl.lifelong.class_names import canonical, check_names, renamed_class
from lightning_cl.lifelong.head_size import resize_head
from lightning_cl.lifelong.lesson import Lesson
from lightning_cl.lifelong.model_folder import ModelFolder
from lightning_cl.lifelong.shared_weights import joined, shared_part, split

from .digit_folders import write_digits

pytestmark = pytest.mark.filterwarnings("ignore")


def test_weights_that_do_not_change_are_stored_once(model, taught):
    first, second = load(taught, 1).checkpoint["state_dict"], model.checkpoint["state_dict"]
    shared = model.folder._shared()
    frozen = [name for name in first if name.startswith("net.") and not name.startswith("net.head")]
    assert set(shared) == set(frozen)
    assert all(torch.equal(first[name], second[name]) for name in frozen)
    backbone = (taught / "backbone.safetensors").stat().st_size
    for number in (1, 2):
        size = sum(file.stat().st_size for file in (taught / "versions" / str(number)).iterdir())
        state = load(taught, number).checkpoint["state_dict"]
        added = sum(v.numel() * v.element_size() for name, v in state.items() if name not in shared)
        assert size < 1.1 * added + 50_000  # what a file of any method has: random states, loops, names
        assert size < backbone / 20


def test_a_checkpoint_is_split_and_joined_bit_for_bit():
    state = {"a": torch.tensor([1.0, float("nan")]), "b": torch.arange(3), "c": torch.tensor([0.0])}
    shared = shared_part({"state_dict": state}, frozenset({"a", "b"}))
    changed = {**state, "b": state["b"] + 1, "c": torch.tensor([-0.0])}
    rest = split({"state_dict": changed, "epoch": 3}, shared)
    assert set(rest["state_dict"]) == {"b", "c"}  # a NaN is itself, too
    whole = joined(rest, shared)
    assert whole["epoch"] == 3
    assert all(torch.equal(whole["state_dict"][n].nan_to_num(7), changed[n].nan_to_num(7)) for n in changed)


def test_a_version_that_was_not_entered_is_written_again(model, months):
    leftover = model.folder.path / "versions" / "3"
    leftover.mkdir()
    (leftover / "state.ckpt").write_bytes(b"half")
    assert load(model.folder.path).version == 2
    model.learn(months[2])
    assert load(model.folder.path, 3).class_names[-1] == "four"


def read_all(folder):
    opened = load(folder)
    return opened.checkpoint, opened.lineage


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model.json", b"{", r"model.json is damaged or half written"),
        ("model.json", json.dumps({"format": 99}).encode(), r"is of format 99, but .* install a newer lightning_cl"),
        ("model.json", b'{"format": 1, "versions": [1]}', r"model.json is damaged .*it has no 'configuration'"),
        ("versions/2/state.ckpt", b"PK", r"state.ckpt is damaged"),
        ("versions/2/state.ckpt", None, r"state.ckpt is damaged or half written \(it is missing\)"),
        ("versions/2/version.json", b"", r"version.json is damaged"),
        ("backbone.safetensors", b"1234", r"backbone.safetensors is damaged"),
    ],
)
def test_a_damaged_folder_is_said_in_one_sentence(model, file, content, words):
    path = model.folder.path / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_all(model.folder.path)
    assert "\n" not in str(error.value)


def test_what_is_no_model_folder(tmp_path, model):
    with pytest.raises(ValueError, match=r"no model folder: it has no model.json"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="has no version 7; it has 1, 2"):
        load(model.folder.path, 7)
    with pytest.raises(ValueError, match="is a model folder already"):
        create(model.folder.path)
    with pytest.raises(ValueError, match="nothing to go on with"):
        model.learn()


class Stop(Exception):
    """A kill."""


def test_a_call_that_was_stopped_goes_on_and_ends_in_the_same_bits(model, months, tmp_path, monkeypatch):
    whole = load(shutil.copytree(model.folder.path, tmp_path / "whole"))
    whole.learn(months[2])
    run = Lesson.run

    def killed(self, folder, start):
        run(self, folder, start)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Lesson, "run", killed)
        with pytest.raises(Stop):
            model.learn(months[2])
    again = load(model.folder.path)
    assert again.version == 2
    assert unfinished_call(again.folder).data == str(months[2])
    with pytest.raises(ValueError, match=r"that was to learn .*month3 was stopped.*`--to 2`"):
        again.learn(months[0])
    assert again.learn().version == 3
    for name, value in whole.checkpoint["state_dict"].items():
        assert torch.equal(value, again.checkpoint["state_dict"][name]), name
    assert not again.folder.unfinished.exists()


def test_going_to_a_version_drops_what_was_stopped(model):
    Call("x", 2, {}).begin(model.folder)
    assert unfinished_call(model.folder) is not None
    model.to(2)
    assert unfinished_call(model.folder) is None


def test_a_change_does_not_lose_what_was_stopped(model):
    Call("x", 2, {}).begin(model.folder)
    for change in (lambda: model.rename("one", "eins"), lambda: model.forget("one")):
        with pytest.raises(ValueError, match=r"learn x was stopped in .* would lose it; .*`--to 2`"):
            change()
    assert unfinished_call(model.folder) is not None
    assert model.folder.index()["versions"] == [1, 2]


@pytest.mark.parametrize("content", ['{"data": "x"', '{"data": "x"}', '{"data": "x", "parent": 2, "later": 1}', "[]"])
def test_a_damaged_call_is_said_in_one_sentence(model, content):
    model.folder.unfinished.mkdir()
    (model.folder.unfinished / "call.json").write_text(content)
    with pytest.raises(ValueError, match=r"call.json is damaged or of another lightning_cl .* delete .*unfinished"):
        unfinished_call(model.folder)


def test_a_call_does_not_go_on_from_what_a_finished_one_left(model):
    checkpoint = model.folder.unfinished / "checkpoints" / "last.ckpt"  # its call.json was removed already
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"")
    call = Call("x", 2, {})
    call.begin(model.folder)
    assert not checkpoint.exists()
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"")
    call.begin(model.folder)  # the same call goes on
    assert checkpoint.exists()


def test_a_new_model_does_not_overwrite_versions_without_an_index(model, months):
    (model.folder.path / "model.json").unlink()
    record = (model.folder.path / "versions" / "1" / "version.json").read_bytes()
    with pytest.raises(ValueError, match=r"has versions .* but no model.json"):
        create(model.folder.path).learn(months[2])
    assert (model.folder.path / "versions" / "1" / "version.json").read_bytes() == record
    assert not model.folder.unfinished.exists()


@pytest.mark.parametrize("inside", ["", "models/m"])
def test_a_model_folder_inside_its_data_is_refused(tmp_path, inside):
    with pytest.raises(ValueError, match=r"lies in the data .*; give a model folder elsewhere"):
        create(tmp_path / inside).learn(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_folder_that_is_a_file_is_said(tmp_path, months):
    (tmp_path / "m").write_text("mine")
    with pytest.raises(ValueError, match="m is a file; give a folder"):
        create(tmp_path / "m").learn(months[0])
    assert (tmp_path / "m").read_text() == "mine"


def test_one_image_cannot_be_held_out_and_the_way_is_named(model, tmp_path):
    data = write_digits(tmp_path / "data", (5,), 1)
    with pytest.raises(ValueError, match=r"no image of .* can be held out, .*`--test-fraction 0`"):
        model.learn(data)
    taught = model.learn(data, test_fraction=0)
    assert taught.new_classes == ["five"]
    assert taught.held_out == 0


def test_a_configuration_of_something_else_is_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1")
    torch.save({}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"config.yaml is no configuration of a run \(KeyError: 'model'\)"):
        load(tmp_path)


# ---------------------------------------------------------------------- names and heads


def test_names_that_only_look_the_same():
    assert canonical("Ｚebra") == "ｚebra"
    assert canonical("Cafe\u0301") == canonical("CAF\u00c9")
    with pytest.raises(ValueError, match=r"'Caf\\xe9'\) in data differs from its own class .*'Cafe\\u0301'\) only by"):
        check_names([], ["Cafe\u0301", "Caf\u00e9"], "data")
    check_names(["a"], ["a", "b"], "data")
    with pytest.raises(ValueError, match="--merge 'a=b'"):
        renamed_class(["a", "b"], "a", "B")
    assert renamed_class(["a", "b"], "a", "A") == ["A", "b"]


def test_a_head_grows_in_place_and_keeps_its_rows():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    head, before, bias = net[2], net[2].weight.detach().clone(), net[2].bias.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    assert resize_head(net, 7, "2") == "2"
    assert head.out_features == 7
    assert torch.equal(head.weight[:3], before)
    assert torch.equal(head.bias[:3], bias)
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()  # it still holds the same parameters
    assert not torch.equal(head.weight[:3], before)
    assert head.weight.shape == (7, 5)
    assert head.bias.shape == (7,)
    assert resize_head(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), 3) == "1"
    with pytest.raises(ValueError, match="Conv2d and cannot be given 7 outputs"):
        resize_head(nn.Sequential(nn.Conv2d(1, 3, 1)), 7, "0")


def test_a_folder_object_does_nothing_by_itself(tmp_path):
    assert not ModelFolder(tmp_path / "x").exists()
    assert not (tmp_path / "x").exists()
