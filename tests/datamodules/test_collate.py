"""Batches of items that do not stack, against batches that are written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.datamodules import ArraySource, ContinualDataModule, DatasetSource, Joint, PadTokens, as_lists
from lightning_cl.datamodules.collate import Tokenized, stacked


class Characters:
    """A tokenizer: a token for each character, 9 for padding."""

    pad_token_id = 9

    def __init__(self, masks: bool = True) -> None:
        self.masks = masks

    def __call__(self, texts, padding, return_tensors, truncation=False, max_length=None):
        assert (padding, return_tensors) == (True, "pt")
        cut = [text[:max_length] if truncation else text for text in texts]
        longest = max(map(len, cut))
        ids = torch.tensor([[*map(int, text), *[9] * (longest - len(text))] for text in cut])
        return {"input_ids": ids, **({"attention_mask": (ids != 9).long()} if self.masks else {})}


def test_token_sequences_are_padded_with_their_mask_and_labels():
    items = [
        {"input_ids": [4, 5, 6], "labels": torch.tensor([1, 2, 3]), "id": 7, "name": "abc"},
        {"input_ids": np.array([8]), "labels": torch.tensor([5]), "id": 1, "name": "d"},
    ]
    batch = PadTokens(pad_id=2)(items)
    assert batch["input_ids"].tolist() == [[4, 5, 6], [8, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [5, -100, -100]]
    assert batch["id"].tolist() == [7, 1]
    assert batch["name"] == ["abc", "d"]


def test_a_mask_that_is_there_stays():
    batch = PadTokens()([{"input_ids": [1, 0], "attention_mask": [1, 0]}, {"input_ids": [1], "attention_mask": [1]}])
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 0]]


def test_texts_are_cut_padded_and_labelled():
    items = [{"text": "123", "label": 1}, {"text": "4", "label": 0}]
    batch = Tokenized(Characters(), max_length=2)(items)
    assert batch["input_ids"].tolist() == [[1, 2], [4, 9]]
    assert (batch["labels"].tolist(), "label" in batch) == ([1, 0], False)
    tokens = Tokenized(Characters(), targets="tokens")(items)
    assert tokens["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]


def test_padding_without_a_mask_is_refused():
    collate = Tokenized(Characters(masks=False))
    assert "attention_mask" not in collate([{"text": "12"}, {"text": "34"}])  # nothing was padded
    with pytest.raises(ValueError, match=r"Characters padded a batch of texts to 2 tokens but gave no attention mask"):
        collate([{"text": "12"}, {"text": "3"}])


def test_images_and_boxes_stay_lists():
    images = [torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)]
    boxes = [{"boxes": torch.zeros(0, 4)}, {"boxes": torch.ones(2, 4)}]
    assert as_lists(list(zip(images, boxes, strict=True))) == (images, boxes)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"ids": torch.zeros(3)}, {"ids": torch.zeros(5)}], r"`ids` is \(3,\) in one and \(5,\) in another"),
        ([(torch.zeros(1, 4), 0), (torch.zeros(1, 5), 1)], r"part 0 is \(1, 4\) in one and \(1, 5\)"),
        ([(torch.zeros(1), {"x": [1, 2]}), (torch.zeros(1), {"x": [1]})], r"`x` is a list of 1 in one and a list of 2"),
    ],
)
def test_samples_of_different_sizes_are_told(items, words):
    with pytest.raises(ValueError, match=rf"samples of the train split have different sizes: {words}.*`collate_fn`"):
        stacked(items, "train")


def test_a_stream_makes_batches_by_its_source():
    data = [(torch.full((n,), float(n)), n % 2) for n in (1, 2, 3, 4)]
    known = {"train_targets": [1, 0, 1, 0], "test_targets": [1, 0, 1, 0]}
    own = ContinualDataModule(DatasetSource(data, data, **known, collate_fn=as_lists), Joint(), batch_size=4)
    own.setup()
    parts, _ = next(iter(own.test_dataloader()))
    assert sorted(map(len, parts)) == [1, 2, 3, 4]
    plain = ContinualDataModule(DatasetSource(data, data, **known), Joint(), batch_size=4)
    plain.setup()
    with pytest.raises(ValueError, match="samples of the test split have different sizes: part 0"):
        next(iter(plain.test_dataloader()))


def test_images_are_stacked_as_ever():
    images = np.arange(4 * 25, dtype=np.uint8).reshape(4, 5, 5)
    stream = ContinualDataModule(ArraySource((images, [0, 1, 0, 1]), (images, [0, 1, 0, 1])), Joint(), batch_size=4)
    stream.setup()
    pixels, labels = next(iter(stream.test_dataloader()))
    order = stream.eval_batch(0, "test").index
    assert_close(pixels[:, 0], torch.from_numpy(images)[order] / 255)
    assert labels.tolist() == (order % 2).tolist()
