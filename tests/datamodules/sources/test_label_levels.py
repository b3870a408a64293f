from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import ArraySource, LabelLevels
from lightning_cl.datamodules.sources.label_levels import deal_levels

#: Five classes of two superclasses of one root; image i is of the grey level i.
TREE = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "y", "x": "r", "y": "r"}
LABELS = np.arange(30) % 5


def make(labelling="single", seed=0):
    images = np.arange(30, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    source = ArraySource((images, LABELS), (images[:10], LABELS[:10]), list("abcde"), superclass_of_class=TREE)
    made = LabelLevels(source, labelling, seed)
    made.setup()
    return made


def test_all_nodes_of_the_tree_are_classes_level_by_level():
    source = make()
    assert source.class_names == ("r", "x", "y", "a", "b", "c", "d", "e")
    assert source.levels == (
        (0, 0, 0, 0, 0, 0, 0, 0),
        (-1, 1, 2, 1, 1, 2, 2, 2),
        (-1, -1, -1, 3, 4, 5, 6, 7),
    )


@pytest.mark.parametrize("labelling", ["single", "dual"])
def test_the_label_of_an_item_is_the_ancestor_of_its_class(labelling):
    source = make(labelling)
    for split, count in (("train", 30 if labelling == "single" else 90), ("test", 30)):
        labels = source.targets(split)
        assert len(labels) == count
        for index in range(count):
            image, label = source.item(split, index)
            own = 3 + LABELS[int(image.flatten()[0])]  # the class of the image itself
            assert label == int(labels[index])
            assert label in [level[own] for level in source.levels]


def test_an_image_has_one_label_or_all_of_them():
    single, dual = (make(kind).places["train"] for kind in ("single", "dual"))
    assert sorted(single[0].tolist()) == list(range(30))
    assert {(int(i), int(level)) for i, level in zip(*dual, strict=True)} == {
        (i, n) for i in range(30) for n in range(3)
    }
    assert make().digest() == make().digest() != make(seed=1).digest()


def test_each_class_has_equal_shares_of_the_levels():
    labels = torch.tensor([0] * 7 + [1] * 6)
    dealt = deal_levels(labels, 3, 0)
    assert torch.bincount(dealt[labels == 0]).tolist() == [3, 2, 2]
    assert torch.bincount(dealt[labels == 1]).tolist() == [2, 2, 2]


def test_what_has_no_levels_is_refused():
    images = np.zeros((5, 2, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match="has no superclasses, so there are no levels of labels"):
        LabelLevels(ArraySource((images, np.arange(5)), (images, np.arange(5)))).setup()
    with pytest.raises(ValueError, match="give 'single' or 'dual'"):
        make("both")


def test_a_name_that_is_there_twice_gets_its_level():
    images = np.zeros((4, 2, 2), dtype=np.uint8)
    part = (images, np.arange(4) % 2)
    source = LabelLevels(ArraySource(part, part, ["Banana", "Gala"], superclass_of_class=["Banana", "Apple"]))
    source.setup()
    assert source.class_names == ("Apple", "Banana (level 0)", "Banana (level 1)", "Gala")
