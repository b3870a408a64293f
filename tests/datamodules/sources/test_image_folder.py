from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image

from lightning_cl.datamodules import ImageFolder


def write(folder, counts, size=(40, 30), mode="RGB"):
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new(mode, size, color=10 * number + i).save(folder / name / f"{i}.png")


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders(tmp_path, test):
    write(tmp_path / "train", {"dog": 2, "cat": 3}, mode="L")
    write(tmp_path / test, {"cat": 1, "dog": 0})
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".cache").mkdir()
    source = ImageFolder(tmp_path, image_size=32)
    source.setup()
    assert source.class_names == ("cat", "dog")
    assert source.train_labels.tolist() == [0, 0, 0, 1, 1]
    assert source.test_labels.tolist() == [0]
    image, label = source.item("train", 4)
    assert (image.mode, image.size, label, image.getpixel((0, 0))[0]) == ("RGB", (40, 30), 1, 1)
    for transform in (source.train_transform(), source.eval_transform()):
        assert transform(image).shape == (3, 32, 32)
    assert pickle.loads(pickle.dumps(source)).digest() == source.digest()


def test_single_folder_is_split(tmp_path):
    write(tmp_path, {"a": 10, "b": 5})
    source = ImageFolder(tmp_path, test_fraction=0.2)
    source.setup()
    assert torch.bincount(source.train_labels).tolist() == [8, 4]
    assert torch.bincount(source.test_labels).tolist() == [2, 1]
    colours = {source.item(s, i)[0].getpixel((0, 0))[0] for s, n in (("train", 12), ("test", 3)) for i in range(n)}
    assert colours == {*range(10), *range(10, 15)}  # every file once
    for split, count in (("train", 12), ("test", 3)):
        assert all(source.item(split, i)[0].getpixel((0, 0))[0] // 10 == source.item(split, i)[1] for i in range(count))


def test_labels_are_read_without_decoding(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "broken.jpg").write_bytes(b"not a picture")
    source = ImageFolder(tmp_path)
    source.setup()
    assert source.train_labels.tolist() == [0]


def test_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; give one that holds train/<class>/"):
        ImageFolder(tmp_path / "nothing").setup()


def test_missing_test_folder(tmp_path):
    write(tmp_path / "train", {"a": 2})
    with pytest.raises(FileNotFoundError, match=r"neither `test` nor `val`.*`test_fraction=0\.2`"):
        ImageFolder(tmp_path).setup()


def test_missing_fraction(tmp_path):
    write(tmp_path, {"a": 2})
    with pytest.raises(ValueError, match=r"has no `train` folder.*pass `test_fraction=0\.2`"):
        ImageFolder(tmp_path).setup()


def test_fraction_that_would_be_ignored(tmp_path):
    write(tmp_path / "train", {"a": 2})
    write(tmp_path / "test", {"a": 2})
    with pytest.raises(ValueError, match="brings its own split; leave `test_fraction` out"):
        ImageFolder(tmp_path, test_fraction=0.2).setup()


def test_different_classes(tmp_path):
    write(tmp_path / "train", {"a": 1, "b": 1})
    write(tmp_path / "val", {"a": 1, "c": 1})
    with pytest.raises(ValueError, match=r"different class folders: only in train \['b'\], only in val \['c'\]"):
        ImageFolder(tmp_path).setup()


def test_class_without_images(tmp_path):
    write(tmp_path / "train", {"a": 1, "b": 0})
    write(tmp_path / "test", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"no training samples: 1 \('b'\)"):
        ImageFolder(tmp_path).setup()


@pytest.mark.parametrize("counts", [{}, {"a": 0}])
def test_no_images_at_all(tmp_path, counts):
    write(tmp_path / "data", counts) if counts else (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="no images found under"):
        ImageFolder(tmp_path / "data", test_fraction=0.2).setup()
