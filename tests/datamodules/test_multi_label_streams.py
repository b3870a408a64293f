"""Streams of samples with several labels: which image comes when, and which labels are shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.datamodules import (
    ArraySource,
    ClassIncremental,
    ClassSubset,
    ContinualDataModule,
    MultiLabelIncremental,
    MultiLabelSource,
)
from lightning_cl.datamodules.stream_plan import lay_out

SETS = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0]])


def source(train=SETS, test=SETS[:5], **options):
    images = [np.zeros((len(sets), 8, 8), dtype=np.uint8) for sets in (train, test)]
    return MultiLabelSource((images[0], train), (images[1], test), **options)


def laid_out(**options):
    found = source()
    found.setup()
    return lay_out(found, MultiLabelIncremental(num_tasks=2, class_order="natural"), 0, **options)


def test_an_image_comes_in_every_task_with_one_of_its_classes_and_is_evaluated_once():
    layout = laid_out()
    assert [index.tolist() for index in layout.train_index] == [[0, 1, 2, 5], [1, 2, 3, 4, 5]]
    assert layout.info.classes_per_task == ((0, 1), (2, 3))
    assert [index.tolist() for index in layout.evaluation["test"].index] == [[0, 1, 2], [3, 4]]


def test_a_share_that_is_held_out_is_in_no_task():
    many = np.tile(SETS, (10, 1))
    found = source(many)
    found.setup()
    layout = lay_out(found, MultiLabelIncremental(num_tasks=2), 0, val_split=0.2)
    held = set(torch.cat(layout.evaluation["val"].index).tolist())
    trained = set(torch.cat(layout.train_index).tolist())
    assert held
    assert not held & trained
    assert held | trained == set(range(60))


def test_items_have_vectors_and_labels_are_part_of_the_digest():
    found, other = source(), source(np.flip(SETS, axis=0).copy())
    found.setup()
    other.setup()
    image, target = found.item("train", 1)
    assert image.shape == (1, 8, 8)
    assert_close(target, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert found.train_labels.tolist() == [0, 0, 1, 2, 3, 1]  # the rarest class, the first of equals
    assert found.digest() != other.digest()
    assert found.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: source(np.array([0, 1, 2])), r"have the shape \(3,\).*a matrix \(N, C\) of zeros and ones"),
        (lambda: source(SETS * 2), "zeros and ones"),
        (
            lambda: source(np.vstack([SETS, np.zeros(4, dtype=int)])),
            "1 of the train labels have no class, the first at position 6",
        ),
        (lambda: source(SETS[[0, 1, 3, 5]]), "the classes 3 .'3'. have no training image"),
        (lambda: source(test=SETS[:3, :3]), "train labels have 4 columns and test labels 3"),
        (lambda: source(class_names=["a"]), "there are 1 class names, but labels have 4 columns"),
    ],
)
def test_bad_labels_are_one_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make().setup()


def test_kinds_of_source_and_scenario_must_agree():
    images = np.zeros((4, 8, 8), dtype=np.uint8)
    single = ArraySource((images, np.array([0, 1, 2, 3])), (images, np.array([0, 1, 2, 3])))
    for given, scenario, words in (
        (
            source(),
            ClassIncremental(num_tasks=2),
            "MultiLabelSource has several labels a sample.*MultiLabelIncremental",
        ),
        (single, MultiLabelIncremental(num_tasks=2), "for sources with several labels a sample, but ArraySource"),
    ):
        with pytest.raises(ValueError, match=words):
            ContinualDataModule(given, scenario).setup("fit")


def test_it_is_not_taken_apart_by_what_knows_one_label_a_sample():
    with pytest.raises(ValueError, match="ClassSubset is for sources with one label a sample, but MultiLabelSource"):
        ClassSubset(source()).setup()
    stream = ContinualDataModule(source(), MultiLabelIncremental(num_tasks=2), batch_size=2)
    stream.extend(source(), MultiLabelIncremental(num_tasks=2))
    with pytest.raises(ValueError, match="`extend` is for sources with one label a sample"):
        stream.setup("fit")
