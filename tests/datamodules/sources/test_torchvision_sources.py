"""Torchvision's own files are written to disk and read by torchvision's own code, so nothing is downloaded."""

from __future__ import annotations

import hashlib
import pickle
import struct
import urllib.error

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from lightning_cl.datamodules import CIFAR10, CIFAR100, MNIST, FashionMNIST, Omniglot

TRAIN, TEST = 30, 10


def write_idx(folder, name):
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        images = np.random.RandomState(count).randint(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, *images.shape) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


def write_cifar(folder, dataset, monkeypatch, label_key, classes):
    base = folder / dataset.base_folder
    base.mkdir(parents=True)

    def entry(name, content):
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name, count):
        data = np.random.RandomState(count).randint(0, 256, (count, 3072), np.uint8)
        return entry(name, {"data": data, label_key: [i % classes for i in range(count)]})

    names = [f"class {i}" for i in range(classes)]
    meta = entry(dataset.meta["filename"], {dataset.meta["key"]: names})
    monkeypatch.setattr(dataset, "train_list", [batch("train", 2 * classes)])
    monkeypatch.setattr(dataset, "test_list", [batch("test", classes)])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": meta[1]})


def write_omniglot(folder, monkeypatch):
    alphabets = {"images_background": ["Zulu", "Greek"], "images_evaluation": ["Atlantean"]}
    number = 0
    for part, names in alphabets.items():
        for name in names:
            for character in ("character02", "character01"):
                number += 1
                target = folder / "omniglot-py" / part / name / character
                target.mkdir(parents=True)
                for drawer in range(1, 21):
                    image = Image.new("L", (105, 105), color=10 * number + drawer % 2)
                    image.save(target / f"{number:04d}_{drawer:02d}.png")
    monkeypatch.setattr(torchvision.datasets.Omniglot, "_check_integrity", lambda self: True)  # the zip is not there


@pytest.mark.parametrize(("source_class", "first"), [(MNIST, "0 - zero"), (FashionMNIST, "T-shirt/top")])
def test_mnist(tmp_path, source_class, first):
    write_idx(tmp_path, source_class.dataset_name)
    source = source_class(tmp_path, download=False)
    source.setup()
    assert source.class_names[0] == first
    assert source.train_labels.tolist() == [i % 10 for i in range(TRAIN)]
    image, label = source.item("test", 3)
    assert (image.size, image.mode, label) == ((28, 28), "L", 3)
    assert source.train_transform()(image).shape == source.eval_transform()(image).shape == (1, 28, 28)
    assert pickle.loads(pickle.dumps(source)).digest() == source.digest()


@pytest.mark.parametrize(("source_class", "key"), [(CIFAR10, "labels"), (CIFAR100, "fine_labels")])
def test_cifar(tmp_path, monkeypatch, source_class, key):
    classes = 10 if source_class is CIFAR10 else 100
    write_cifar(tmp_path, getattr(torchvision.datasets, source_class.dataset_name), monkeypatch, key, classes)
    source = source_class(str(tmp_path), image_size=64, normalize=False)
    source.prepare()  # everything is there, so nothing is downloaded
    source.setup()
    assert (source.num_classes, source.class_names[7], source.image_size) == (classes, "class 7", 64)
    assert source.test_labels.tolist() == list(range(classes))
    names = source.file_names("train")  # as published lists have them: images of a class count from 1
    assert (names[4], names[classes + 4]) == ("class 4/0001.png", "class 4/0002.png")
    assert source.file_names("test")[4] == "class 4/0001.png"
    if source_class is CIFAR100:  # a baby, a boy, a girl, a man and a woman; five classes each
        people = source.superclass_names[0].index("people")
        assert [c for c, above in enumerate(source.levels[0]) if above == people] == [2, 11, 35, 46, 98]
        assert [source.levels[0].count(above) for above in range(20)] == [5] * 20
    image, label = source.item("train", 4)
    assert (image.size, label) == ((32, 32), 4)
    made = source.train_transform()(image)
    assert made.shape == (3, 64, 64)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_labels_are_read_without_decoding(tmp_path, monkeypatch):
    write_idx(tmp_path, "MNIST")
    monkeypatch.setattr(torchvision.datasets.MNIST, "__getitem__", None)
    source = MNIST(tmp_path, download=False)
    source.setup()
    assert len(source.test_labels) == TEST


@pytest.mark.parametrize("part", ["all", "background", "evaluation"])
def test_omniglot(tmp_path, monkeypatch, part):
    write_omniglot(tmp_path, monkeypatch)
    source = Omniglot(tmp_path, part=part, download=False)
    source.setup()
    alphabets = {"all": ["Atlantean", "Greek", "Zulu"], "background": ["Greek", "Zulu"], "evaluation": ["Atlantean"]}
    expected = [f"{name}/character0{i}" for name in alphabets[part] for i in (1, 2)]
    assert list(source.class_names) == expected
    assert torch.bincount(source.train_labels).tolist() == [15] * len(expected)
    assert torch.bincount(source.test_labels).tolist() == [5] * len(expected)
    values = [Image.Image.getpixel(source.item("train", i)[0], (0, 0)) // 10 for i in range(len(source.train_labels))]
    assert len(set(values)) == len(expected)  # one grey value per character: images and labels belong together
    assert len(set(zip(values, source.train_labels.tolist(), strict=True))) == len(expected)
    assert source.eval_transform()(source.item("test", 0)[0]).shape == (1, 28, 28)


def test_omniglot_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    write_omniglot(tmp_path, monkeypatch)
    digests = set()
    for reverse in (False, True):

        def listing(root, prefix=False, reverse=reverse):
            import os

            return sorted((p for p in os.listdir(root) if os.path.isdir(os.path.join(root, p))), reverse=reverse)

        monkeypatch.setattr(torchvision.datasets.omniglot, "list_dir", listing)
        source = Omniglot(tmp_path, download=False)
        source.setup()
        image, _ = source.item("train", 20)
        digests.add((source.digest(), image.getpixel((0, 0))))
    assert len(digests) == 1


@pytest.mark.parametrize("source_class", [MNIST, FashionMNIST, CIFAR10, CIFAR100, Omniglot])
def test_missing_data_say_what_to_do(tmp_path, source_class):
    with pytest.raises(FileNotFoundError, match=r"is not in `root`.*call `prepare\(\)` with `download=True`"):
        source_class(tmp_path).setup()


@pytest.mark.parametrize("source_class", [MNIST, FashionMNIST, CIFAR10, CIFAR100, Omniglot])
def test_prepare_downloads_only_if_allowed(tmp_path, monkeypatch, source_class):
    asked = []
    monkeypatch.setattr(source_class, "_dataset", lambda self, **options: asked.append(options))
    source_class(tmp_path, download=False).prepare()
    assert asked == []
    source_class(tmp_path).prepare()
    assert len(asked) == 2
    assert all(options["download"] for options in asked)


@pytest.mark.parametrize("source_class", [MNIST, CIFAR100, Omniglot])
@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), RuntimeError("file not found or corrupted")])
def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch, source_class, error):
    def fail(self):
        raise error

    monkeypatch.setattr(getattr(torchvision.datasets, source_class.dataset_name), "download", fail)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded.*(no route|corrupted).*another machine"):
        source_class(tmp_path).prepare()


def test_symbols_are_not_mirrored():
    for source_class in (MNIST, Omniglot):
        assert source_class("x").augment == "none"
        with pytest.raises(ValueError, match="symbols"):
            source_class("x", augment="flip")
    assert CIFAR10("x").augment == "crop"
    with pytest.raises(ValueError, match="`part` is 'half'"):
        Omniglot("x", part="half")
