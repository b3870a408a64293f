from __future__ import annotations

from collections import OrderedDict, namedtuple

import pytest
import torch

from lightning_cl.training.batch import INPUT_KEYS, TARGET_KEYS, Inputs, call_with, joined_inputs, takes_names, unpack

X, Y = torch.zeros(2, 3), torch.tensor([1, 0])
Named = namedtuple("Named", ["x", "y"])


@pytest.mark.parametrize("batch", [(X, Y), [X, Y], (X, Y, "more"), Named(X, Y), OrderedDict(label=Y, other=0, image=X)])
def test_inputs_and_targets_are_found(batch):
    inputs, targets = unpack(batch)
    assert inputs is X
    assert targets is Y


@pytest.mark.parametrize("key", INPUT_KEYS)
@pytest.mark.parametrize("target", TARGET_KEYS)
def test_all_the_usual_names(key, target):
    assert unpack({key: X, target: Y}) == (X, Y)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (X, "the batch is a Tensor without a target"),
        ((X,), "the batch is a tuple of 1 without a target"),
        ([], "the batch is a list of 0 without a target"),
        ({"image": X, "weight": Y}, r"keys \['image', 'weight'\], but no targets among them \(looked for label"),
        ({"label": Y}, r"keys \['label'\], but no inputs among them"),
    ],
)
def test_a_batch_without_a_target(batch, words):
    with pytest.raises(ValueError, match=words):
        unpack(batch)


def test_a_single_input_keeps_its_name_where_it_is_asked_for():
    inputs, targets = unpack({"pixel_values": X, "labels": Y}, named=True)
    assert isinstance(inputs, Inputs)
    assert call_with(lambda **given: given, inputs) == {"pixel_values": X}
    assert targets is Y
    assert unpack((X, Y), named=True) == (X, Y)  # there is none


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda **inputs: None, True),
        (lambda *, pixel_values, labels=None: None, True),
        (lambda images: None, False),
        (lambda *inputs, **more: None, False),
        (lambda pixel_values, **more: None, False),
    ],
)
def test_what_takes_its_inputs_by_name_only(forward, expected):
    assert takes_names(forward) == expected


def test_inputs_are_joined_row_behind_row_and_shorter_texts_are_padded():
    assert joined_inputs(X, X[:1] + 1)[:, 0].tolist() == [0, 0, 1]
    first = Inputs({"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)})
    second = Inputs({"input_ids": torch.tensor([[8, 9]]), "attention_mask": torch.ones(1, 2, dtype=torch.long)})
    joined = joined_inputs(first, second)
    assert isinstance(joined, Inputs)
    assert joined.parts["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert joined.parts["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
