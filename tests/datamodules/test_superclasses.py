from __future__ import annotations

import numpy as np
import pytest

from lightning_cl.datamodules import ArraySource, ClassSubset, ContinualDataModule, Digits, Joint, StreamInfo
from lightning_cl.datamodules.superclasses import level_of_each, read_superclasses

ANIMALS = ("cat", "dog", "trout")
TREE = {"cat": "mammal", "dog": "mammal", "trout": "fish", "mammal": "animal", "fish": "animal"}


def test_numbers_names_and_a_tree_say_the_same():
    by_number = read_superclasses(np.array([1, 1, 0], dtype=np.uint8), ANIMALS, ["fish", "mammal"])
    assert (
        by_number == read_superclasses(["mammal", "mammal", "fish"], ANIMALS) == (((1, 1, 0),), (("fish", "mammal"),))
    )
    assert read_superclasses(TREE, ANIMALS) == (((0, 0, 0), (1, 1, 0)), (("animal",), ("fish", "mammal")))
    assert read_superclasses([0, 1, 0], ANIMALS).names == (("0", "1"),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**TREE, "animal": "cat"}, "has the cycle cat -> mammal -> animal -> cat; a label tree has none"),
        ({"cat": "cat", "dog": "mammal", "trout": "fish"}, "has the cycle cat -> cat"),
        ({"cat": "mammal", "trout": "fish"}, "the class 'dog' has no superclass"),
        (["mammal", None, "fish"], "the class 'dog' has no superclass"),
        ([0, 0], "the class 'trout' has no superclass"),
        ([0, 1, 1, 0], "has 4 entries, but there are 3 classes"),
        ([0, 2, 2], r"the numbers 0\.\.2 of the superclasses, each at least once"),
        ([0.5, 0.5, 1.5], "must hold the numbers"),
        ({"cat": "mammal", "dog": "mammal", "mammal": "animal", "trout": "fish"}, "some classes 1 and others 2 levels"),
    ],
)
def test_what_is_no_tree_is_refused_in_a_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        read_superclasses(given, ANIMALS)


def test_a_file_brings_its_superclasses_and_the_stream_tells_them(tmp_path):
    images, labels = np.zeros((6, 4, 4), dtype=np.uint8), np.arange(6) % 3
    parts = {f"{split}_{part}": value for split in ("train", "test") for part, value in (("x", images), ("y", labels))}
    names = np.array(["plant", "beast"])
    np.savez(tmp_path / "a.npz", **parts, superclass_of_class=np.array([1, 0, 1]), superclass_names=names)
    source = ArraySource(tmp_path / "a.npz")
    stream = ContinualDataModule(source, Joint())
    stream.setup()
    assert source.levels == stream.info.levels == ((1, 0, 1), (0, 1, 2))
    assert source.superclass_names == (("plant", "beast"),)
    assert StreamInfo.from_state_dict(stream.info.state_dict()) == stream.info
    with pytest.raises(ValueError, match="the class '2' has no superclass"):
        ArraySource(tmp_path / "a.npz", superclass_of_class={"0": "a", "1": "b"}).setup()


def test_a_part_of_the_classes_keeps_the_superclasses_that_it_has():
    part = ClassSubset(Digits(superclass_of_class=[0, 1, 2, 2, 1, 0, 0, 1, 2, 0]), classes=[3, 5, 8])
    part.setup()
    assert part.levels == ((1, 0, 1), (0, 1, 2))
    assert part.superclass_names == (("0", "2"),)
    assert level_of_each(part.levels) == (1, 1, 1)
