from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.datamodules import Digits


@pytest.fixture(scope="module")
def digits():
    source = Digits()
    source.setup()
    return source


def test_all_the_digits_are_there_once(digits):
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    pixels = torch.cat([digits.item(s, i)[0].flatten()[None] for s in ("train", "test") for i in _all(digits, s)])
    assert len(torch.unique(pixels, dim=0)) == 1797
    assert (digits.class_names[0], digits.class_names[9]) == ("zero", "nine")


def _all(source, split):
    return range(len(source.train_labels if split == "train" else source.test_labels))


def test_split_is_stratified(digits):
    train, test = torch.bincount(digits.train_labels), torch.bincount(digits.test_labels)
    assert_close(test / (train + test), torch.full((10,), 0.2), atol=0.003, rtol=0)


def test_items_are_the_images_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = load_digits()
    source = Digits(test_fraction=0.5)
    source.setup()
    known = {tuple(image.flatten()): int(label) for image, label in zip(data.images, data.target, strict=True)}
    for index in range(0, len(source.test_labels), 37):
        image, label = source.item("test", index)
        assert (image.shape, image.dtype, type(label)) == ((1, 8, 8), torch.uint8, int)
        levels = (image.double() * 16 / 255).round().flatten().tolist()  # back to the 17 grey levels
        assert known[tuple(levels)] == label == int(source.test_labels[index])


def test_default_transform_normalises(digits):
    transform = digits.eval_transform()
    batch = torch.stack([transform(digits.item("train", i)[0]) for i in range(len(digits.train_labels))])
    assert batch.shape[1:] == (1, 16, 16)
    assert abs(float(batch.mean())) < 0.01
    native = Digits(image_size=8)
    native.setup()
    batch = torch.stack([native.eval_transform()(native.item("train", i)[0]) for i in range(1400)])
    assert_close(batch.std(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_digits_are_never_mirrored(digits):
    names = [type(t).__name__ for t in Digits(augment="crop").train_transform().transforms]
    assert "RandomCrop" in names
    assert "RandomHorizontalFlip" not in names
    assert digits.augment == "none"
    with pytest.raises(ValueError, match="would turn these symbols into others"):
        Digits(augment="flip")


def test_split_seed():
    first, again, other = Digits(split_seed=1), Digits(split_seed=1), Digits(split_seed=2)
    for source in (first, again, other):
        source.setup()
    assert torch.equal(first.item("test", 0)[0], again.item("test", 0)[0])
    assert first.digest() == again.digest() != other.digest()


def test_wrong_fraction():
    with pytest.raises(ValueError, match=r"`test_fraction` is 1\.5"):
        Digits(test_fraction=1.5)
