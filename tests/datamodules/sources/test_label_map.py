"""Labels as people have them; the reference for each is the plain list of ids that is meant."""

from __future__ import annotations

import pickle
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from lightning_cl.datamodules import ArraySource, DatasetSource
from lightning_cl.datamodules.sources.label_map import label_values, map_labels
from lightning_cl.datamodules.sources.labels import as_ids, names_by_id, ordered_names

IDS = [1, 0, 2, 1, 0]

INTEGERS = {
    "shuffled index": pd.Series(IDS, index=[3, 1, 4, 0, 2]),
    "index without 0": pd.Series(IDS, index=range(5, 10)),
    "index of text": pd.Series(IDS, index=list("abcde")),
    "nullable": pd.Series(IDS, dtype="Int64"),
    "arrow": pd.Series(IDS, dtype="int64[pyarrow]"),
    "one-column frame": pd.DataFrame({"label": IDS}),
    "objects": np.array(IDS, dtype=object),
    "series of objects": pd.Series(IDS, dtype=object),
    "tensors in an array of objects": np.array([torch.tensor(i) for i in IDS] + [None], dtype=object)[:-1],
    "index": pd.Index(IDS),
}


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_are_read_by_position(kind):
    assert as_ids(INTEGERS[kind], "labels").tolist() == IDS
    assert map_labels(INTEGERS[kind], [0]).train.tolist() == IDS


WORDS = ["dog", "cat", "fox", "dog", "cat"]  # sorted: cat 0, dog 1, fox 2

NAMES = {
    "list": WORDS,
    "array": np.array(WORDS),
    "bytes": np.array(WORDS, dtype="S"),
    "objects": np.array(WORDS, dtype=object),
    "series": pd.Series(WORDS, index=range(5, 10)),
    "nullable": pd.Series(WORDS, dtype="string"),
    "categories": pd.Series(WORDS, dtype="category"),
    "frame": pd.DataFrame({"label": WORDS}),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_get_ids_in_sorted_order(kind):
    found = map_labels(NAMES[kind], ["fox", "cat"])
    assert (found.train.tolist(), found.test.tolist()) == (IDS, [2, 0])
    assert (found.names, found.changed) == (("cat", "dog", "fox"), True)


@pytest.mark.parametrize(
    "class_names", [["fox", "dog", "cat"], {"fox": 0, "dog": 1, "cat": 2}, {0: "fox", 1: "dog", 2: "cat"}]
)
def test_class_names_state_the_order(class_names):
    found = map_labels(WORDS, [], class_names)
    assert (found.train.tolist(), found.names) == ([1, 2, 0, 1, 2], ("fox", "dog", "cat"))


@pytest.mark.parametrize(
    ("given", "class_names", "names"),
    [
        ([1, 3, 2, 1], None, ("1", "2", "3")),  # starts at 1
        ([1, 3, 2, 1], ["a", "b", "c"], ("a", "b", "c")),  # names of the classes that there are
        ([1, 3, 2, 1], ["-", "a", "b", "c"], ("a", "b", "c")),  # names by label
        ([10, 70, 20, 10], None, ("10", "20", "70")),  # gaps
        ([10, 70, 20, 10], {10: "a", 20: "b", 70: "c", 90: "d"}, ("a", "b", "c")),
        ([10, 70, 20, 10], {"a": 10, "b": 20, "c": 70}, ("a", "b", "c")),
        ([-1, 7, 3, -1], None, ("-1", "3", "7")),
    ],
)
def test_compact_numbers_labels_in_ascending_order(given, class_names, names):
    found = map_labels(given, given[1:3], class_names, "compact")
    assert (found.train.tolist(), found.test.tolist(), found.names) == ([0, 2, 1, 0], [2, 1], names)
    assert found.changed


def test_labels_that_need_no_map_stay():
    assert not map_labels(IDS, [0], label_map="compact").changed
    assert not map_labels(IDS, [0]).changed


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        ([1, 2], [1], {}, r'no training samples: 0 \(.0.\); .*or add samples, or pass `label_map="compact"`'),
        ([0, 1], [5], {"label_map": "compact"}, r"test labels \[5\] have no training samples"),
        ([0, 5], [0], {"label_map": "compact", "class_names": ["a", "b", "c"]}, r"3 names, but none for .*\[5\]"),
        ([0, 1], [0], {"label_map": "dense"}, "`label_map` is 'dense'; expected 'compact' or None"),
        (["a", "b"], [0], {}, "they are names and `test labels` are integers; give both the same kind"),
        (["a", "b"], ["c"], {"class_names": ["a", "b"]}, r"the classes \['c'\] of the set are not in `class_names`"),
        (pd.Series([0, None, 1]), [0], {}, "1 of 3 `train labels` are missing, the first at position 1"),
        (pd.Series([0, None, 1], dtype="Int64"), [0], {}, "1 of 3 `train labels` are missing"),
        (pd.Series(["a", None]), ["a"], {}, "1 of 2 `train labels` are missing"),
        (pd.DataFrame({"x": [0], "y": [1]}), [0], {}, "a table with the columns 'x', 'y'; give the one that holds"),
        (np.array([0, "a"], dtype=object), [0], {}, "objects of the types int, str"),
        ([0, 1], [0], {"class_names": ["a", "a"]}, r"class names \['a'\] are there more than once"),
        ([0, 1], [0], {"class_names": {"a": 0, "b": 0}}, r"class ids \[0\] are there more than once"),
        ([0, 1], [0], {"class_names": {0: "a", 2: "b"}}, r"no name for the class ids \[1\]; give one for each of 0..2"),
        ([0, 1], [0], {"class_names": {0: 1, 1: 0}}, r"\{name: id\} as in `class_to_idx`, or \{id: name\}"),
    ],
)
def test_labels_that_cannot_be_read(train, test, options, message):
    with pytest.raises(ValueError, match=message):
        map_labels(train, test, **options)


def test_names_of_dictionaries_are_their_names():
    expected = {0: "a", 1: "b"}
    for names in (
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        {"b": 1, "a": 0},
        {0: "a", 1: "b"},
        {"0": "a", "1": "b"},
    ):
        assert names_by_id(names) == expected
    assert names_by_id({"a": np.int64(0), "b": np.int64(1)}) == expected
    assert ordered_names({"0": 1, "1": 0}) == ("1", "0")  # digits' names, as class_to_idx


def test_a_long_column_is_read_as_it_is():
    ids = np.arange(1000) % 7
    assert label_values(ids, "labels") is not None
    assert np.array_equal(label_values(pd.Series(ids), "labels"), ids)


Pair = namedtuple("Pair", ["image", "label"])


class Items(Dataset):
    """Items with labels of their own kind, which fail when fetched for the labels."""

    def __init__(self, labels, kind=tuple, **attributes):
        self.known, self.kind, self.decodable = list(labels), kind, False
        self.targets = labels
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.known)

    def __getitem__(self, index):
        assert self.decodable, "labels must be read without decoding"
        image, label = torch.full((1,), float(index)), self.known[index]
        if self.kind is dict:
            return {"image": image, "y": label, "more": 5}
        return Pair(image, label) if self.kind is Pair else self.kind((image, label))


def opened(*args, **kwargs):
    source = DatasetSource(*args, **kwargs)
    source.setup()
    return source


@pytest.mark.parametrize("kind", [tuple, list, dict, Pair])
@pytest.mark.parametrize(
    ("labels", "names", "options"),
    [(WORDS, ("cat", "dog", "fox"), {}), ([20, 10, 70, 20, 10], ("10", "20", "70"), {"label_map": "compact"})],
    ids=["names", "gaps"],
)
def test_items_have_the_ids_that_the_plan_has(kind, labels, names, options):
    data = Items(labels, kind)
    source = opened(data, data, **options)
    assert (source.train_labels.tolist(), source.class_names) == (IDS, names)
    data.decodable = True
    for index, label in enumerate(IDS):
        item = pickle.loads(pickle.dumps(source)).item("train", index)
        assert type(item) is kind
        image, found = (item["image"], item["y"]) if kind is dict else item
        assert (float(image), found) == (index, label)


def test_names_in_subsets_and_joined_sets():
    data = Items(WORDS)
    assert opened(ConcatDataset([Subset(data, [4, 2]), data]), Subset(data, [3])).train_labels.tolist() == [0, 2, *IDS]
    with pytest.raises(ValueError, match="some of the joined data sets name their classes, others number them"):
        opened(ConcatDataset([data, Items(IDS)]), data)


@pytest.mark.parametrize(
    "attributes",
    [
        {"classes": ["a", "b", "c"]},
        {"classes": np.array(["a", "b", "c"])},
        {"classes": {0: "a", 1: "b", 2: "c"}},
        {"class_to_idx": {"c": 2, "a": 0, "b": 1}},
        {"id2label": {"0": "a", "1": "b", "2": "c"}},
    ],
)
def test_names_that_a_data_set_knows(attributes):
    assert opened(Items(IDS, **attributes), Items([0])).class_names == ("a", "b", "c")
    shifted = Items([i + 1 for i in IDS], classes=["a", "b", "c"])
    assert opened(shifted, shifted, label_map="compact").class_names == ("a", "b", "c")


def test_names_twice_are_an_error_wherever_they_come_from():
    for options in ({"class_names": ["a", "b", "a"]}, {}):
        data = Items(IDS, classes=["a", "b", "a"])
        with pytest.raises(ValueError, match=r"class names \['a'\] are there more than once.*`class_names=`"):
            opened(data, data, **options)


@pytest.mark.parametrize("kind", INTEGERS)
def test_domains_are_read_by_position_too(kind):
    domains = INTEGERS[kind]
    source = opened(Items([0, 1, 0, 1, 0]), Items([0]), train_domains=domains, test_domains=[0])
    assert source.train_domains.tolist() == IDS


def test_tensor_data_sets_with_labels_from_1():
    data = TensorDataset(torch.rand(3, 2), torch.tensor([1, 2, 1]))
    source = opened(data, data, label_map="compact")
    assert [source.item("train", i)[1] for i in range(3)] == [0, 1, 0]


def test_arrays_with_names_and_gaps():
    pixels = np.zeros((5, 8, 8), np.uint8)
    source = ArraySource((pixels, pd.Series(WORDS)), (pixels, WORDS))
    source.setup()
    assert [source.item("test", i)[1] for i in range(5)] == IDS
    source = ArraySource((pixels, [20, 10, 70, 20, 10]), (pixels[:1], [70]), label_map="compact")
    source.setup()
    assert (source.train_labels.tolist(), source.test_labels.tolist()) == (IDS, [2])
    assert source.class_names == ("10", "20", "70")
