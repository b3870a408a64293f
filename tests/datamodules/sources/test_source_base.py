from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import Source
from lightning_cl.datamodules.sources.labels import as_ids

GOLDEN = "02b1c54a5cd800fc4b815e5bed7c753ec5209755dcd3621cc3727ebe32f9b05d"


class Facts(Source):
    """A source that is nothing but its facts."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs, self.opened = args, kwargs, 0

    def _open(self):
        self.opened += 1
        self._describe(*self.args, **self.kwargs)

    def item(self, split, index):
        raise AssertionError("labels must be known without fetching an item")


def opened(*args, **kwargs):
    source = Facts(*args, **kwargs)
    source.setup()
    return source


def test_facts_are_published():
    source = opened([1, 0, 1], np.array([0, 1], np.uint16), ["cat", "dog"])
    assert source.train_labels.tolist() == [1, 0, 1]
    assert source.test_labels.tolist() == [0, 1]
    assert source.train_labels.dtype == source.test_labels.dtype == torch.int64
    assert (source.class_names, source.num_classes) == (("cat", "dog"), 2)
    assert source.train_domains is source.test_domains is source.domain_names is None


def test_setup_opens_once():
    source = opened([0, 1], [0])
    source.setup()
    assert source.opened == 1


def test_a_source_that_failed_to_open_is_not_half_open():
    source = Facts([0, 1], [0], train_domains=[0, 1])  # a domain for the test split is missing
    for _ in range(2):
        with pytest.raises(ValueError, match="give `test_domains` too"):
            source.setup()


@pytest.mark.parametrize("name", ["train_labels", "class_names", "num_classes", "train_domains"])
def test_facts_before_setup_say_what_to_call(name):
    with pytest.raises(AttributeError, match=rf"Facts\.{name}.*call `prepare\(\)`.*`setup\(\)` first"):
        getattr(Facts([0], [0]), name)


def test_unknown_attributes_are_ordinary_errors():
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = opened([0], [0]).colour


def test_names_default_to_numbers_and_a_test_split_may_lack_classes():
    assert opened([0, 1, 2], [1]).class_names == ("0", "1", "2")
    assert len(opened([0, 1], []).test_labels) == 0


@pytest.mark.parametrize(
    ("train", "names", "message"),
    [
        ([0, 2], None, r"1 of 3 class ids have no training samples: 1 \('1'\)"),
        ([0, 1], ["a", "b", "c"], r"no training samples: 2 \('c'\)"),
        ([0, 1, 2], ["a", "b"], r"the train split has the class ids \[2\].*integers 0\.\.1"),
        ([-1, 0], None, r"the train split has the class ids \[-1\]"),
        ([0.0, 1.0], None, "must be integers 0..C-1, but they are torch.float"),
        ([True, False], None, "torch.bool"),
        ([[0], [1]], None, r"shape \(N,\), but the shape is \(2, 1\)"),
        (["cat", "dog"], None, "`train labels` must be integers"),
        ([], None, "has no training samples"),
    ],
)
def test_wrong_labels(train, names, message):
    with pytest.raises(ValueError, match=message):
        opened(train, [0], names)


def test_unknown_test_label():
    with pytest.raises(ValueError, match=r"the test split has the class ids \[5\]"):
        opened([0, 1], [5], ["a", "b"])


def test_domains():
    source = opened([0, 0, 1], [1, 0], train_domains=[0, 1, 1], test_domains=[1, 1], domain_names=["day", "night"])
    assert source.train_domains.tolist() == [0, 1, 1]
    assert source.test_domains.tolist() == [1, 1]
    assert source.domain_names == ("day", "night")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([0, 1], [0], "`train_domains` has 2 entries but there are 3 train samples"),
        ([0, 0, 0], [0, 0], "`test_domains` has 2 entries but there are 1 test samples"),
        ([0, 2, 2], [0], r"1 of 3 domain ids have no training samples: 1"),
        (None, [0], "give `train_domains` too"),
    ],
)
def test_wrong_domains(train, test, message):
    with pytest.raises(ValueError, match=message):
        opened([0, 0, 1], [1], train_domains=train, test_domains=test)


def test_digest_is_a_golden_value():  # a change here changes the fingerprint of every published stream
    source = opened([1, 0, 1], [0, 1], ["cat", "dog"])
    assert source.digest() == GOLDEN
    assert pickle.loads(pickle.dumps(source)).digest() == GOLDEN


@pytest.mark.parametrize(
    "other",
    [
        (([0, 1, 1], [0, 1], ["cat", "dog"]), {}),
        (([1, 0, 1], [1, 0], ["cat", "dog"]), {}),
        (([1, 0], [1, 0, 1], ["cat", "dog"]), {}),
        (([1, 0, 1], [0, 1], ["cat", "cow"]), {}),
        (([1, 0, 1], [0, 1], ["cat", "dog"]), {"train_domains": [0, 0, 0], "test_domains": [0, 0]}),
    ],
)
def test_digest_tells_data_apart(other):
    assert opened(*other[0], **other[1]).digest() != GOLDEN


def test_as_ids_reads_every_integer_type():
    for dtype in (np.uint8, np.uint16, np.uint32, np.int8, np.int32, np.int64):
        assert as_ids(np.array([0, 100], dtype), "labels").tolist() == [0, 100]
    assert as_ids((3, 1), "labels").tolist() == [3, 1]
