from __future__ import annotations

import pytest
import torch

from lightning_cl.datamodules import HLE, ContinualDataModule, Digits, LabelLevels

SUPERCLASSES = [0, 1, 2, 2, 1, 2, 0, 1, 0, 0]


def stream(labelling="single", tasks=2, **options):
    source = LabelLevels(Digits(superclass_of_class=SUPERCLASSES), labelling)
    made = ContinualDataModule(source, HLE(tasks), batch_size=16, **options)
    made.setup()
    return made


@pytest.mark.parametrize("labelling", ["single", "dual"])
def test_coarse_labels_come_first_and_finer_classes_in_parts(labelling):
    made = stream(labelling, 3)
    held = made.info.classes_per_task
    assert held[0] == (0, 1, 2)
    assert sorted(map(len, held[1:])) == [3, 3, 4]
    assert sorted(c for classes in held[1:] for c in classes) == list(range(3, 13))
    labels = made.source.train_labels
    for classes, index in zip(held, made.layout.train_index, strict=True):
        assert set(labels[index].tolist()) == set(classes)
    assert len(torch.cat(made.layout.train_index).unique()) == len(labels)


def test_single_labels_show_an_image_once_and_dual_ones_again_at_a_finer_level():
    for labelling, times in (("single", 1), ("dual", 2)):
        made = stream(labelling)
        images = made.source.places["train"][0][torch.cat(made.layout.train_index)]
        assert set(torch.bincount(images).tolist()) == {times}


def test_it_is_one_ordered_pass_of_mixed_samples_that_the_seed_decides():
    made = stream()
    first = made.layout.train_index[0]
    assert made.online
    assert not torch.equal(first, first.sort().values)
    assert made.info.fingerprint == stream().info.fingerprint != stream(seed=1).info.fingerprint


def test_it_needs_labels_of_several_levels():
    with pytest.raises(ValueError, match=r"but those of Digits are all of one; use `LabelLevels\(source\)`"):
        ContinualDataModule(Digits(superclass_of_class=SUPERCLASSES), HLE()).setup()
    with pytest.raises(ValueError, match="`tasks_per_level` is 11, but level 1 has 10 classes"):
        stream(tasks=11)
    with pytest.raises(ValueError, match="give at least 1"):
        HLE(0)
