"""Folders as they are on people's disks, against the plain list of the pictures that are meant."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image

from lightning_cl.datamodules import ArraySource, ImageFolder
from lightning_cl.datamodules.sources.image_files import class_folders, image_files


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, format="PNG")


PICTURES = ("a/1.png", "a/2.png", "b/1.png", "b/2.png")


def opened(root, **options):
    source = ImageFolder(root, **options)
    source.setup()
    return source


def files_of(source):
    return sorted([*source.file_names("train"), *source.file_names("test")])


@pytest.mark.parametrize(
    "litter",
    [
        ["a/._1.png", "b/._2.png"],
        ["__MACOSX/a/._1.png", "__MACOSX/1.png"],
        ["a/__MACOSX/1.png"],
        [".ipynb_checkpoints/1-checkpoint.png"],
        ["a/.ipynb_checkpoints/1-checkpoint.png"],
        ["b/.hidden.png", ".thumbnails/x.png"],
    ],
)
def test_what_is_no_picture_of_the_set_is_left_out(tmp_path, litter):
    put(tmp_path, *PICTURES)
    for name in litter:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07")
    source = opened(tmp_path, test_fraction=0.5)
    assert source.class_names == ("a", "b")
    assert files_of(source) == list(PICTURES)


def test_links_to_folders_are_followed(tmp_path):
    put(tmp_path / "elsewhere", "x/3.png", "x/deep/4.png")
    put(tmp_path / "data", *PICTURES)
    (tmp_path / "data" / "a" / "more").symlink_to(tmp_path / "elsewhere" / "x", target_is_directory=True)
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere" / "x", target_is_directory=True)
    (tmp_path / "data" / "b" / "5.png").symlink_to(tmp_path / "elsewhere" / "x" / "3.png")
    assert image_files(tmp_path / "data", class_folders(tmp_path / "data")) == (
        ["a/1.png", "a/2.png", "a/more/3.png", "a/more/deep/4.png", "b/1.png", "b/2.png", "b/5.png", "c/3.png",
         "c/deep/4.png"], [0, 0, 0, 0, 1, 1, 1, 2, 2],
    )  # fmt: skip


def test_links_that_lead_nowhere_or_in_circles(tmp_path):
    put(tmp_path, *PICTURES)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert image_files(tmp_path, ["a", "b"])[0] == list(PICTURES)


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN"])
@pytest.mark.parametrize("test", ["test", "Test", "Val", "VAL"])
def test_split_folders_in_any_letter_case(tmp_path, train, test):
    put(tmp_path / train, *PICTURES)
    put(tmp_path / test, "a/9.png", "b/9.png")
    source = opened(tmp_path)
    assert source.class_names == ("a", "b")
    assert source.file_names("train") == list(PICTURES)
    assert source.file_names("test") == ["a/9.png", "b/9.png"]
    assert source.item("test", 1)[1] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("name", [b"caf\xe9/\xfc.png", b"\xff\xfe/1.png"])
def test_names_that_are_no_utf8(tmp_path, name):
    put(tmp_path, "a/1.png", "a/2.png")
    folder, file = (os.path.join(os.fsencode(tmp_path), part) for part in (name.split(b"/")[0], name))
    os.mkdir(folder)
    for path in (file, file + b".png"):
        with open(path, "wb") as opened_file:
            Image.new("RGB", (4, 4)).save(opened_file, format="PNG")
    source = opened(tmp_path, test_fraction=0.5)
    for class_name in source.class_names:
        class_name.encode("utf-8")  # it can be written into a report
    assert source.num_classes == 2
    assert len(source.digest()) == 64
    assert [source.item("train", i)[0].size for i in range(2)] == [(4, 4)] * 2


def test_a_class_of_one_picture_is_for_training(tmp_path):
    put(tmp_path, *PICTURES, "c/1.png")
    with pytest.warns(UserWarning, match=r"1 of 3 classes have one image \('c'\), which is for training"):
        source = opened(tmp_path, test_fraction=0.5)
    assert source.train_labels.tolist() == [0, 1, 2]
    assert source.test_labels.tolist() == [0, 1]


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(("images", "labels"), [("x_{}", "y_{}"), ("{}_images", "{}_labels")])
def test_keys_of_npz_files(tmp_path, images, labels, columns):
    pixels, ids = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8), np.array([1, 0, 1, 0], np.uint8)
    parts = {"train": (pixels, ids), "test": (pixels[:1], ids[:1])}
    keys = {}
    for split, (x, y) in parts.items():
        keys |= {images.format(split): x, labels.format(split): y[:, None] if columns else y}
    np.savez(tmp_path / "data.npz", **keys)
    source = ArraySource(tmp_path / "data.npz")
    source.setup()
    assert (source.train_labels.tolist(), source.test_labels.tolist()) == ([1, 0, 1, 0], [1])
    assert np.array_equal(source.item("train", 2)[0][0].numpy(), pixels[2])
