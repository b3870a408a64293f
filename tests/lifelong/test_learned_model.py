"""A model that learns folder after folder: versions, classes that come back, what is read, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import lightning_cl
from lightning_cl.callbacks import PrototypeClassifier
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.lifelong import LearnedModel, create, load
from lightning_cl.lifelong import preprocessing as preprocessing_module
from lightning_cl.lifelong.lesson_source import LessonSource

from .digit_folders import digits, write_digits

pytestmark = pytest.mark.filterwarnings("ignore")


def bank(model: LearnedModel):
    return model.module.continual.parts["prototypeclassifier"].bank


def test_a_class_that_comes_back_is_continued_and_the_head_grows(model, months):
    counts, sums = bank(model).counts.clone(), bank(model).sums.clone()
    assert model.class_names == ["one", "zero", "three", "two"]
    taught = model.learn(months[2])
    assert (taught.version, taught.new_classes, taught.classes) == (3, ["four"], ["four", "one"])
    assert model.class_names == ["one", "zero", "three", "two", "four"]
    assert bank(model).counts.tolist() == [16, 8, 8, 8, 8]  # a fifth is held out
    assert torch.equal(bank(model).sums[1:4], sums[1:4])
    assert counts.tolist() == [8, 8, 8, 8]
    assert model.module.continual_head.out_features == 5


def test_every_version_stays_and_can_be_gone_back_to(model, months):
    before = bank(load(model.folder.path, 1)).sums
    model.to(1)
    assert model.class_names == ["one", "zero"]
    assert torch.equal(bank(model).sums, before)
    taught = model.learn(months[2])
    assert taught.version == 3
    assert model.folder.record(3)["parent"] == 1
    assert [record["version"] for record in model.lineage] == [1, 3]
    assert model.class_names == ["one", "zero", "four"]
    assert load(model.folder.path, 2).class_names == ["one", "zero", "three", "two"]


def test_only_the_new_images_are_read_for_training(model, months, monkeypatch, tmp_path):
    read: list[str] = []
    own = preprocessing_module.read_picture
    folders = {name: 0 for name in ("month1", "month2", "month3")}

    def counted(file, name, channels=None):
        read.append(name)
        return own(file, name, channels)

    monkeypatch.setattr(preprocessing_module, "read_picture", counted)
    monkeypatch.setattr("lightning_cl.datamodules.sources.image_folder.read_picture", counted)
    model.learn(months[2])
    for name in read:
        folders[Path(name).parent.parent.name] += 1
    # of the old ones the two held-out images of each class; of the new 16 for training and 4 held out
    assert folders == {"month1": 4, "month2": 4, "month3": 20}


def test_old_images_need_not_be_there_and_the_report_says_so(months, tmp_path):
    first = shutil.copytree(months[0], tmp_path / "first")
    model = create(tmp_path / "model", methods=[PrototypeClassifier()])
    model.learn(first)
    shutil.rmtree(first)
    taught = model.learn(months[1])
    assert any("4 of 4 evaluation images of task 0 (one, zero) are not there any more" in n for n in taught.notes)
    assert taught.before is None
    assert taught.accuracy is not None
    assert "not there any more" in (tmp_path / "model" / "report" / "continual_report.json").read_text()


def test_folder_by_folder_ends_in_the_bits_of_one_fit(model, months):
    """A sequence of calls against one fit over the whole stream, on a stream that a user would extend."""
    model.learn(months[2])
    known, parts = model.configuration, []
    for month, names in zip(months, ((), ("one", "zero"), ("one", "zero", "three", "two")), strict=True):
        parts.append(LessonSource(month, known.preprocessing, known=names))
    stream = ContinualDataModule(parts[0], ClassIncremental(num_tasks=1), batch_size=8, seed=known.seed)
    for part in parts[1:]:
        stream.extend(part, ClassIncremental(num_tasks=1), classes="by_name")
    whole = known.build_module(5, fresh=True)
    trainer = lightning_cl.namespace.Trainer(
        max_epochs=-1, logger=False, enable_checkpointing=False, callbacks=[PrototypeClassifier()],
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(whole, datamodule=stream)
    own = whole.continual.parts["prototypeclassifier"].bank
    assert torch.equal(own.sums, bank(model).sums)
    assert torch.equal(own.counts, bank(model).counts)
    assert stream.info.fingerprint == model.checkpoint["lightning_cl"]["info"]["fingerprint"]


def test_predictions_are_named(model, months):
    found = model.predict(months[0])
    assert len(found) == 20
    assert found.class_names == model.class_names
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(20))
    truth = [Path(image).parent.name for image in found.images]
    assert sum(a == b for a, b in zip(truth, found.labels, strict=True)) >= 18
    one = Path(found.images[0])
    picture = model.predict([Image.open(one)])
    look = model.configuration.preprocessing
    tensor = model.predict(look.transform()(look.read(one))[None])
    assert torch.equal(picture.probabilities, tensor.probabilities)
    torch.testing.assert_close(picture.probabilities, found.probabilities[:1])
    assert found.top(2)[0][0][0] == found.labels[0]


def test_rename_merge_and_forget(model, months):
    assert model.rename("one", "uno") == 3
    assert model.class_names == ["uno", "zero", "three", "two"]
    sums, counts = bank(model).sums.clone(), bank(model).counts.clone()
    model.merge("three", "two")
    assert model.class_names == ["uno", "zero", "two"]
    assert torch.equal(bank(model).sums[3], sums[2] + sums[3])
    assert bank(model).counts[3] == counts[2] + counts[3]
    model.forget("zero")
    assert model.class_names == ["uno", "two"]
    assert bank(model).sums[1].abs().sum() == 0
    assert set(model.predict(months[0]).labels) <= {"uno", "two"}
    taught = model.learn(months[2], rename={"one": "uno"})
    assert taught.new_classes == ["four"]
    assert model.class_names == ["uno", "two", "four"]
    assert bank(model).sums[1].abs().sum() == 0
    assert taught.accuracy is not None
    assert taught.accuracy > 0.8  # the held-out images of `three` count as `two`, those of `zero` not at all
    assert load(model.folder.path, 2).class_names == ["one", "zero", "three", "two"]


def test_what_cannot_be_forgotten_is_said_and_changes_nothing(tmp_path, months):
    model = create(tmp_path / "model")  # one covariance for all classes
    model.learn(months[0])
    with pytest.raises(ValueError, match=r"one for all classes.*PrototypeClassifier"):
        model.forget("one")
    assert model.folder.index()["versions"] == [1]
    assert model.class_names == ["one", "zero"]


def test_the_same_image_in_two_folders_is_reported(model, months, tmp_path):
    again = shutil.copytree(months[0], tmp_path / "again")
    shutil.copy(next((again / "one").iterdir()), again / "zero" / "copy.png")
    notes = model.learn(again).notes
    assert notes[:2] == [
        "the same image is in the classes 'one' and 'zero'",
        "more than once in this folder: 1 image(s)",
    ]
    assert notes[2] == f"learned before, from {months[0]} (version 1): 20 image(s)"


def test_a_source_with_names_can_be_learned_and_one_without_is_refused(model):
    images, labels = digits()
    rows = [(labels == digit).nonzero()[0][:6] for digit in (5, 6)]
    pixels = images[[r for part in rows for r in part]].repeat(2, 1).repeat(2, 2)
    split = (pixels, [0] * 6 + [1] * 6)
    options = {"mean": (0.18,), "std": (0.29,)}
    taught = model.learn(ArraySource(split, split, class_names=["five", "six"], **options))
    assert taught.new_classes == ["five", "six"]
    assert "ArraySource" in model.folder.record()["data"]
    model.rename("five", "0")
    with pytest.raises(ValueError, match=r"names no classes.*class_names"):
        model.learn(ArraySource(split, split, **options))


@pytest.mark.parametrize(
    ("classes", "rename", "words"),
    [
        (("Zero", "nine"), {}, "'Zero' .* differs from the model's class 'zero' only by letter case"),
        (("nine", "nine "), {"nine ": "nine"}, "would be called 'nine' after renaming"),
        (("nine",), {"eight": "two"}, "has no class 'eight' to rename"),
    ],
)
def test_names_that_are_not_clear_are_refused_and_nothing_is_changed(model, tmp_path, classes, rename, words):
    for name in classes:
        shutil.copytree(write_digits(tmp_path / "x", (9,)) / "nine", tmp_path / "data" / name)
    with pytest.raises(ValueError, match=words):
        model.learn(tmp_path / "data", rename=rename)
    assert model.folder.index()["versions"] == [1, 2]
    assert not model.folder.unfinished.exists()


def test_one_class_is_nothing_to_tell_apart_but_a_later_folder_may_have_one(model, tmp_path):
    one = write_digits(tmp_path / "data", (9,))
    with pytest.raises(ValueError, match="has one class, 'nine', and the model knows no other"):
        create(tmp_path / "new").learn(one)
    assert not (tmp_path / "new").exists()
    assert model.learn(one).new_classes == ["nine"]


def test_without_held_out_images_nothing_is_measured(tmp_path, months):
    model = create(tmp_path / "model", methods=[PrototypeClassifier()], test_fraction=0)
    taught = model.learn(months[0])
    assert taught.held_out == 0
    assert taught.accuracy is None
    assert bank(model).counts.tolist() == [10, 10]
    assert model.learn(months[1], test_fraction=0.2).accuracy is not None
