from __future__ import annotations

from collections import OrderedDict, namedtuple

import pytest
import torch

from lightning_cl.training.batch import INPUT_KEYS, TARGET_KEYS, unpack

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
