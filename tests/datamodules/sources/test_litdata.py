from __future__ import annotations

import builtins
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datamodules.tiny_stream import make_trainer
from lightning.pytorch import Callback
from PIL import Image

from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, LitDataSource
from lightning_cl.models import ImageClassifier

LABELS = {"train": [i * 7 % 4 for i in range(24)], "test": [i % 4 for i in range(8)]}
NAMES = ("ant", "bee", "cat", "dog")


def colour(split: str, index: int) -> int:
    return index + (100 if split == "test" else 0)


def as_dict(given: tuple[str, int]) -> dict[str, Any]:
    split, index = given
    image = Image.fromarray(np.full((8, 8, 3), colour(split, index), np.uint8))
    return {"image": image, "label": LABELS[split][index]}


def as_tuple(given: tuple[str, int]) -> tuple[Any, str]:
    item = as_dict(given)
    return item["image"], NAMES[item["label"]]


def relabelled(given: tuple[str, int]) -> dict[str, Any]:
    item = as_dict(given)
    return {**item, "label": 3 - item["label"]}


def write(folder: Path, make: Any) -> Path:
    litdata = pytest.importorskip("litdata", reason="LitData is not installed: pip install 'lightning-cl[cloud]'")
    for split, labels in LABELS.items():
        inputs = [(split, index) for index in range(len(labels))]
        litdata.optimize(make, inputs, str(folder / split), chunk_size=5, num_workers=1, start_method="fork")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images in chunks of 5, every pixel the image's number; and 8 test images."""
    return write(tmp_path_factory.mktemp("litdata"), as_dict)


def source(root: Path, cache: Path, **options: Any) -> LitDataSource:
    return LitDataSource(root, image_size=None, augment="none", label_cache=cache, **options)


def test_labels_are_read_without_decoding_and_once(root, tmp_path, monkeypatch):
    from litdata.streaming import serializers

    monkeypatch.setattr(serializers.PILSerializer, "deserialize", lambda *_: pytest.fail("an image was decoded"))
    opened = source(root, tmp_path / "cache")
    opened.prepare()
    opened.setup()
    assert opened.train_labels.tolist() == LABELS["train"]
    assert opened.test_labels.tolist() == LABELS["test"]
    assert opened.class_names == ("0", "1", "2", "3")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    monkeypatch.setattr("lightning_cl.datamodules.sources.litdata_source.field", lambda *_: pytest.fail("read again"))
    again = source(root, tmp_path / "cache")
    again.setup()
    assert again.digest() == opened.digest()


def test_any_image_by_its_index_also_of_a_copy(root, tmp_path):
    opened = source(root, tmp_path)
    opened.setup()
    copy = pickle.loads(pickle.dumps(opened))
    for reader in (opened, copy):
        for index in (23, 0, 7, 8, 6, 0):
            image, label = reader.item("train", index)
            assert (image.mode, image.getpixel((3, 3))) == ("RGB", (index,) * 3)
            assert label == LABELS["train"][index]
        assert opened.item("test", 5)[0].getpixel((0, 0)) == (105,) * 3


def test_tuples_with_names(tmp_path):
    folder = write(tmp_path / "set", as_tuple)
    keys = {"image_key": 0, "label_key": 1}
    opened = source(folder, tmp_path / "cache", **keys)
    opened.setup()
    assert opened.class_names == NAMES
    assert opened.train_labels.tolist() == LABELS["train"]
    assert opened.item("train", 9)[0].getpixel((0, 0)) == (9,) * 3
    turned = source(folder, tmp_path / "cache", **keys, class_names=NAMES[::-1])
    turned.setup()
    assert turned.train_labels.tolist() == [3 - label for label in LABELS["train"]]
    with pytest.raises(ValueError, match=re.escape("['cat', 'dog'] of the set are not in `class_names`")):
        source(folder, tmp_path / "cache", **keys, class_names=NAMES[:2]).setup()


def test_a_label_file_beside_the_chunks_counts(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "set")
    other = np.roll(LABELS["train"], 1)
    np.save(folder / "train" / "labels.npy", other)
    opened = source(folder, tmp_path / "cache")
    opened.setup()
    assert opened.train_labels.tolist() == other.tolist()
    np.save(folder / "train" / "labels.npy", other[:-1])
    with pytest.raises(ValueError, match=r"labels.npy' has 23 labels, but the set has 24 items"):
        source(folder, tmp_path / "cache").setup()


def test_what_cannot_be_read_is_said(root, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no optimised LitData set can be read at .*nowhere/train"):
        source(tmp_path / "nowhere", tmp_path).setup()
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"doesn't contain any index.json"):
        source(tmp_path / "empty", tmp_path).setup()
    with pytest.raises(ValueError, match="have no 'target': they are dictionaries with 'image', 'label'"):
        source(root, tmp_path, label_key="target").setup()
    with pytest.raises(ValueError, match=r"must be integers 0..C-1 or class names, but 'image' is None"):
        source(root, tmp_path, label_key="image").setup()
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("litdata"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'lightning-cl\[cloud\]'"):
        source(root, tmp_path / "other").setup()


class Killed(RuntimeError):
    pass


class KillAt(Callback):
    """Saves after every step, and stops a run in the middle of the second task."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Killed


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_the_same_bits(root, tmp_path, workers):
    def fit(*callbacks: Callback, ckpt_path: Path | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        opened = LitDataSource(root, image_size=16, augment="crop", label_cache=tmp_path / "cache")
        stream = ContinualDataModule(opened, ClassIncremental(2), batch_size=5, epochs_per_task=2, num_workers=workers)
        module = ImageClassifier("resnet10t", num_classes=4, pretrained=False)
        make_trainer(tmp_path, callbacks).fit(module, datamodule=stream, ckpt_path=ckpt_path)
        return module.state_dict()

    whole = fit()
    with pytest.raises(Killed):
        fit(KillAt(tmp_path / "killed.ckpt", step=8))
    resumed = fit(ckpt_path=tmp_path / "killed.ckpt")
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_a_set_that_is_written_anew_is_read_anew(tmp_path):
    """The same sizes and names, other labels."""
    opened = source(write(tmp_path / "set", as_dict), tmp_path / "cache")
    opened.setup()
    shutil.rmtree(tmp_path / "set")
    anew = source(write(tmp_path / "set", relabelled), tmp_path / "cache")
    anew.setup()
    assert anew.train_labels.tolist() == [3 - label for label in opened.train_labels.tolist()]
