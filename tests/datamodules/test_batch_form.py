"""Where inputs and targets are found in items and batches, and how an item is changed there."""

from __future__ import annotations

import pytest
import torch
from batch_kinds import CLASSES, KINDS, Other, Pair, Samples, image, label
from torch.utils.data import default_collate

from lightning_cl.datamodules import ClassIncremental, ClassSubset, ContinualDataModule, DatasetSource
from lightning_cl.datamodules.batch_form import find_places, with_names, with_part
from lightning_cl.training.batch import Inputs, call_with, unpack

ROWS = [9, 0, 23]


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.labelled])
def test_inputs_and_targets_of_every_kind(name):
    kind = KINDS[name]
    batch = default_collate([kind.item(i) for i in ROWS])
    inputs, targets = unpack(batch, kind.keys)
    assert targets.tolist() == [label(i) for i in ROWS]
    if kind.image is not None:
        assert (inputs[0] if isinstance(inputs, list) else inputs) is kind.image(batch)
        return
    asked = call_with(lambda *given, **named: (given, named), inputs)
    names = ("input_ids", "attention_mask") if kind.keys is None else ("ids", "mask")
    assert asked[0] == ()
    assert list(asked[1]) == list(names)
    assert all(asked[1][key] is batch[key] for key in names)


def test_several_inputs_by_position_are_given_in_their_order():
    first, second = torch.arange(4), torch.arange(4.0)
    inputs, targets = unpack((second, torch.ones(4), first), ((2, 0), 1))
    assert call_with(lambda *given: given, inputs) == (first, second)
    assert targets.tolist() == [1] * 4
    assert call_with(lambda *given: [part.tolist() for part in given], inputs[2:]) == [[2, 3], [2, 3]]
    assert (inputs.numel(), inputs.nbytes) == (8, 4 * 8 + 4 * 4)
    assert isinstance(inputs, Inputs)


@pytest.mark.parametrize(
    ("batch", "places"),
    [
        ((1, 2), ((0,), 1)),
        ((torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.long), torch.arange(3)), ((0,), 1)),  # an index behind
        ((torch.zeros(3, 1, 2, 2), torch.zeros(3, 6), torch.arange(3)), ((0,), 1)),  # several labels, and an index
        ((torch.zeros(3, 1, 2, 2), torch.zeros(3, 2, 2), torch.arange(3)), ((0,), 1)),  # masks, and an index
        ({"x": 1, "mask": 2}, (("x",), None)),
        ({"y": 1}, ((), "y")),
        ((1,), ((), None)),
        (torch.zeros(2), ((), None)),
    ],
)
def test_what_is_usual_stays(batch, places):
    assert find_places(batch) == places


def test_names_that_are_not_there_are_looked_for_as_usual():
    assert find_places({"image": 1, "label": 2}, ("photo", "species")) == (("image",), "label")
    assert find_places((1, 2), (3, 2)) == ((0,), 1)


@pytest.mark.parametrize(
    ("item", "place", "expected"),
    [
        ((1, 2, 3), 1, (1, 0, 3)),
        ([1, 2, 3], -1, [1, 2, 0]),
        (Pair(1, 2), "label", Pair(1, 0)),
        (Pair(1, 2), 0, Pair(0, 2)),
        ({"a": 1, "b": 2}, "a", {"a": 0, "b": 2}),
    ],
)
def test_an_item_keeps_its_type(item, place, expected):
    changed = with_part(item, place, 0)
    assert changed == expected
    assert type(changed) is type(expected)


def test_names_make_dictionaries_of_tuples_only():
    assert with_names((1, 2, 3), (("a", "b"), "c")) == {"a": 1, "b": 2, "c": 3}
    assert with_names((7, image(0), 2), ("a", "c"))["c"] == 2  # an index first
    assert with_names((1, 2), (0, 1)) == (1, 2)
    other = Other(1, 2)
    assert with_names(other, ("photo", "species")) is other
    with pytest.raises(ValueError, match=r"`batch_keys` names 3 parts \(a, b, c\), but an item of the data has 2"):
        with_names((1, 2), (("a", "b"), "c"))


@pytest.mark.parametrize("name", ["pair", "input_ids", "named tuple", "index first", "two views"])
def test_a_part_of_the_classes_renumbers_the_label_of_every_kind(name):
    data = Samples(KINDS[name])
    source = ClassSubset(DatasetSource(data, data), classes=[2, 4])
    stream = ContinualDataModule(source, ClassIncremental(num_tasks=2), batch_size=8)
    stream.setup()
    batch = stream.batch(torch.arange(8))
    assert unpack(batch)[1].tolist() == source.train_labels.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("name", ["pair", "own names", "named tuple in another order", "index first", "by position"])
def test_a_transform_changes_the_image_of_every_kind(name):
    kind = KINDS[name]
    data = Samples(kind)
    stream = ContinualDataModule(
        DatasetSource(data, data),
        ClassIncremental(num_tasks=2),
        batch_keys=kind.keys,
        eval_transform=lambda picture: -picture,
    )
    stream.setup()
    batch = stream.batch(torch.tensor(ROWS), view="eval")
    assert torch.equal(kind.image(batch), -torch.stack([image(i) for i in ROWS]))
    assert type(batch) is type(default_collate([kind.item(0)]))
    assert len(data) == 4 * CLASSES
