from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image

from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, ImageNetR

CLASSES = ("n01443537", "n01484850", "n02165456")


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(CLASSES):
        (tmp_path / "imagenet-r" / name).mkdir(parents=True)
        for i in range(10):
            image = Image.new("RGB", (40, 30), color=(10 * number + i, 0, 0))
            image.save(tmp_path / "imagenet-r" / name / f"art_{i}.png")
    (tmp_path / "imagenet-r" / "README.txt").write_text("as in the archive")
    return tmp_path


def opened(*args, **options):
    source = ImageNetR(*args, **options)
    source.setup()
    return source


def colours(source, split):
    labels = source.train_labels if split == "train" else source.test_labels
    return {source.item(split, i)[0].getpixel((0, 0))[0]: source.item(split, i)[1] for i in range(len(labels))}


@pytest.mark.parametrize("inside", [False, True], ids=["root", "folder"])
def test_without_lists_a_fifth_of_each_class_is_held_out(root, inside):
    source = opened(root / "imagenet-r" if inside else root)
    assert source.class_names == CLASSES
    assert torch.bincount(source.train_labels).tolist() == [8, 8, 8]
    assert torch.bincount(source.test_labels).tolist() == [2, 2, 2]
    train, test = colours(source, "train"), colours(source, "test")
    assert sorted([*train, *test]) == list(range(30))  # every image once
    assert all(colour // 10 == label for colour, label in {**train, **test}.items())


def test_the_split_is_of_its_seed_alone_and_the_digest_tells(root):
    first, again, other = opened(root), opened(root / "imagenet-r"), opened(root, split_seed=1)
    assert colours(first, "test") == colours(again, "test")
    assert first.digest() == again.digest() == pickle.loads(pickle.dumps(first)).digest()
    assert colours(first, "test") != colours(other, "test")
    assert torch.equal(first.train_labels, other.train_labels)
    assert first.digest() != other.digest()
    streams = [ContinualDataModule(source, ClassIncremental(num_tasks=3)) for source in (first, other)]
    assert streams[0].info.fingerprint != streams[1].info.fingerprint


def write_lists(folder, kind):
    """Class ids of their own order; the two last images of each class are for testing, one is in no list."""
    order = (CLASSES[2], CLASSES[0], CLASSES[1])
    for split, numbers in (("train", range(7)), ("test", range(8, 10))):
        files = [(f"{name}/art_{i}.png", label) for label, name in enumerate(order) for i in numbers]
        if kind == "yaml":
            paths, labels = ("\n".join(f"- {v}" for v in values) for values in zip(*files, strict=True))
            text = f"data:\n{paths}\ntargets:\n{labels}\n".replace("- n", "- data/imagenet-r/n")
        else:
            text = "\n".join(f"{path} {label}" for path, label in files)
        (folder / f"{split}.{kind}").write_text(text)
    return {f"{split}_list": folder / f"{split}.{kind}" for split in ("train", "test")}


@pytest.mark.parametrize("kind", ["yaml", "txt"])
def test_published_lists_decide_split_and_class_ids(root, kind, tmp_path_factory):
    source = opened(root, **write_lists(tmp_path_factory.mktemp("lists"), kind))
    assert source.class_names == (CLASSES[2], CLASSES[0], CLASSES[1])
    expected = {10 * number + i: label for label, number in enumerate((2, 0, 1)) for i in range(10)}
    assert colours(source, "train") == {c: label for c, label in expected.items() if c % 10 < 7}
    assert colours(source, "test") == {c: label for c, label in expected.items() if c % 10 > 7}


def test_default_transforms_are_the_protocol_of_the_prompt_methods(root):
    source = opened(root, normalize=False)
    assert source.mean is None
    for transform in (source.train_transform(), source.eval_transform()):
        image = transform(source.item("train", 0)[0])
        assert image.shape == (3, 224, 224)
        assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("exists", [True, False])
def test_missing_images(tmp_path, exists):
    with pytest.raises(
        FileNotFoundError, match=r"ImageNet-R is not in .*; download https://.*imagenet-r.tar .* unpack it"
    ):
        opened(tmp_path if exists else tmp_path / "nothing")


def test_a_list_alone(root):
    with pytest.raises(ValueError, match="`train_list` is given alone; give the `test_list` of the same split"):
        ImageNetR(root, train_list="train.yaml")


def test_a_missing_list(root):
    with pytest.raises(FileNotFoundError, match="there is no file list"):
        opened(root, train_list=root / "train.yaml", test_list=root / "test.yaml")


def test_construction_does_nothing():
    source = pickle.loads(pickle.dumps(ImageNetR("nowhere")))
    with pytest.raises(AttributeError, match="known after `setup"):
        _ = source.train_labels
