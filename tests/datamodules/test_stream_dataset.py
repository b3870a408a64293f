from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_stream import make_source
from torch.testing import assert_close
from torchvision.transforms import v2

from lightning_cl.datamodules import ArraySource, ClassSubset
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.sources.images import ImageTransform, geometry
from lightning_cl.datamodules.stream_dataset import StreamDataset

KEYS = [(3, 10), (0, 11), (5, 12)]


@pytest.fixture(scope="module")
def source() -> Source:
    source = make_source()
    source.setup()
    return source


def test_one_item_is_a_batch_of_one(source):
    image, label = StreamDataset(source, "train", None)[(3, None)]
    assert (image.shape, label.tolist()) == ((1, 1, 8, 8), [int(source.train_labels[3])])


class Items(Source):
    """Gives whatever item it was made with."""

    def __init__(self, item: Any) -> None:
        self._item, self.train_labels, self.test_labels = item, torch.zeros(4).long(), torch.zeros(1).long()
        self.class_names = ("one",)

    def item(self, split: Any, index: int) -> Any:
        return self._item


def first_item(item: Any, batch_keys: Any = None) -> Any:
    def collate(items: list[Any]) -> Any:
        return items[0]

    return StreamDataset(Items(item), "train", lambda image: image + 1, batch_keys, collate)[(0, None)]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((1, 2), (2, 2)),
        ([1, 2, "path"], [2, 2, "path"]),
        ({"label": 2, "image": 1}, {"label": 2, "image": 2}),
        ({"pixel_values": 1, "labels": 2}, {"pixel_values": 2, "labels": 2}),
        (1, 2),
    ],
)
def test_the_transform_sees_the_image_part_of_an_item(item, expected):
    assert first_item(item) == expected


def test_batch_keys_make_dictionaries_of_tuples():
    assert first_item((1, 2, "path"), ("pixel_values", "labels")) == {"pixel_values": 2, "labels": 2}
    assert first_item({"image": 1}, ("pixel_values", "labels")) == {"image": 2}


def test_an_item_without_an_image_is_named():
    with pytest.raises(ValueError, match=r"no image found in an item with the keys \['label', 'picture'\].*rename"):
        first_item({"picture": 1, "label": 2})


def pictures(kind: type[ArraySource] = ArraySource) -> ArraySource:
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    source = kind((images, torch.arange(6) % 2), (images, torch.arange(6) % 2))
    source.setup()
    return source


@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
@pytest.mark.parametrize("keys", [None, ("pixel_values", "labels")])
def test_a_batch_holds_the_bits_of_its_samples(augment, keys):
    source, transform = pictures(), ImageTransform(geometry(12, 8, augment), (0.5,), (0.5,))
    batch = StreamDataset(source, "train", transform, keys)[KEYS[0]], StreamDataset(source, "train", transform, keys)
    images, labels = parts(batch[1].__getitems__(KEYS))
    plain = StreamDataset(source, "train", v2.Compose(transform.transforms), keys)
    expected, their_labels = parts(plain.__getitems__(KEYS))
    assert_close(images, expected, rtol=0, atol=0)
    assert labels.tolist() == their_labels.tolist() == [1, 0, 1]
    assert_close(parts(batch[0])[0][0], expected[0], rtol=0, atol=0)


def parts(batch: Any) -> tuple[Any, Any]:
    return (batch["pixel_values"], batch["labels"]) if isinstance(batch, dict) else tuple(batch)


def test_samples_that_are_collated_by_the_user_share_no_memory():
    transform = ImageTransform(geometry(12, 8), None, None)
    items = StreamDataset(pictures(), "train", transform, None, lambda items: items).__getitems__(KEYS)
    assert all(image.untyped_storage().nbytes() == image.nbytes for image, _ in items)


class Noisy(ArraySource):
    def item(self, split: Any, index: int) -> Any:
        image, label = super().item(split, index)
        return image, label + random.randrange(1000) + int(np.random.rand() * 1000) + int(torch.rand(()) * 1000)


def test_a_source_that_draws_is_seeded_sample_by_sample():
    dataset = StreamDataset(pictures(Noisy), "train", ImageTransform([], None, None))
    assert dataset.__getitems__(KEYS)[1].tolist() == [int(dataset[key][1]) for key in KEYS]


def test_where_nothing_draws_nothing_is_seeded(monkeypatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("seeded")

    monkeypatch.setattr(np.random, "seed", refuse)
    for transform in (None, ImageTransform(geometry(12, 8), None, None)):
        StreamDataset(pictures(), "train", transform).__getitems__(KEYS)
    rows = np.random.default_rng(0).random((6, 4)), np.zeros(6, dtype=int)
    table = ArraySource(rows, rows, mean=(0.5,), std=(0.5,), layout="ND")
    table.setup()
    inputs, _ = StreamDataset(table, "train", table.train_transform()).__getitems__(KEYS)
    assert_close(inputs, torch.as_tensor(rows[0])[[3, 0, 5]].float() * 2 - 1)
    with pytest.raises(AssertionError, match="seeded"):
        StreamDataset(pictures(), "train", ImageTransform(geometry(12, 8, "flip"), None, None)).__getitems__(KEYS)


class OneByOne(ArraySource):
    """Tables of which only single items can be had."""

    def item(self, split: Any, index: int) -> Any:
        return super().item(split, index)


@pytest.mark.parametrize("layout", ["ND", "NTD"])
@pytest.mark.parametrize("scale", [{}, {"mean": (0.25,), "std": (0.3,)}])
@pytest.mark.parametrize("wrap", [lambda source: source, lambda source: ClassSubset(source, classes=[0, 2])])
def test_a_table_that_is_read_at_once_gives_what_its_items_give(layout, scale, wrap):
    rng, labels = np.random.default_rng(0), np.arange(12) % 3
    shape = (12, 4) if layout == "ND" else (12, 5, 4)
    part = rng.random(shape), labels  # float64, and ends as float32
    read, made = [], []
    for cls in (ArraySource, OneByOne):
        source = wrap(cls(part, part, layout=layout, **scale))
        source.setup()
        assert (source.rows("train", torch.tensor([1])) is None) == (cls is OneByOne)
        read.append(StreamDataset(source, "train", source.train_transform()))
        made.append(read[-1].__getitems__([(5, 1), (0, None), (5, 3)]))
    for at_once, item_by_item in zip(*made, strict=True):
        assert at_once.dtype == item_by_item.dtype
        assert torch.equal(at_once, item_by_item)
    made[0][0].zero_()  # the batch is the reader's
    assert torch.equal(read[0].__getitems__([(5, 1)])[0], made[1][0][:1])
