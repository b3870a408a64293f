"""Two class-disjoint parts of a source: together all of it, apart in every class, and visible in the stream's hash."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cl.datamodules import ArraySource, ClassIncremental, ClassSubset, ContinualDataModule
from lightning_cl.datamodules.sources.class_subset import tuning_classes
from lightning_cl.datamodules.sources.extended import ExtendedSource


def source(num_classes: int = 6, domains: bool = False) -> ArraySource:
    """Images whose pixels are 10 times the label, plus the copy."""
    labels = np.repeat(np.arange(num_classes), 3)
    images = np.stack([np.full((2, 2), 10 * label + copy % 3, dtype=np.uint8) for copy, label in enumerate(labels)])
    more = {"train_domains": np.arange(len(labels)) % 3, "test_domains": np.arange(len(labels)) % 3} if domains else {}
    return ArraySource((images, labels), (images, labels), class_names=[f"c{i}" for i in range(num_classes)], **more)


def opened(**options: object) -> ClassSubset:
    subset = ClassSubset(source(), **options)
    subset.setup()
    return subset


@given(num_classes=st.integers(2, 200), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_classes_are_split_by_seed(num_classes: int, fraction: float, seed: int) -> None:
    count = round(num_classes * fraction)
    if not 0 < count < num_classes:
        with pytest.raises(ValueError, match="both parts need at least one"):
            tuning_classes(num_classes, fraction, seed)
        return
    chosen = tuning_classes(num_classes, fraction, seed)
    assert chosen == sorted(set(chosen)) == tuning_classes(num_classes, fraction, seed)
    assert len(chosen) == count
    assert 0 <= chosen[0] <= chosen[-1] < num_classes


def test_the_parts_are_disjoint_and_complete() -> None:
    tuning, evaluation = opened(part="tuning"), opened(part="evaluation")
    assert not set(tuning.class_names) & set(evaluation.class_names)
    assert sorted((*tuning.class_names, *evaluation.class_names)) == [f"c{i}" for i in range(6)]
    assert sorted(torch.cat([tuning.index["train"], evaluation.index["train"]]).tolist()) == list(range(18))
    assert opened(seed=1).class_names != tuning.class_names or opened(seed=2).class_names != tuning.class_names


@pytest.mark.parametrize("part", ["tuning", "evaluation"])
def test_items_keep_image_and_class(part: str) -> None:
    subset = opened(part=part)
    for split, labels in (("train", subset.train_labels), ("test", subset.test_labels)):
        for position, label in enumerate(labels.tolist()):
            image, own = subset.item(split, position)
            assert own == label
            assert f"c{int(np.asarray(image).flat[0]) // 10}" == subset.class_names[label]


def test_listed_classes_and_domains() -> None:
    subset = ClassSubset(source(domains=True), classes=[4, 1])
    subset.setup()
    assert subset.class_names == ("c1", "c4")
    assert subset.train_domains.tolist() == [0, 1, 2, 0, 1, 2]
    assert pickle.loads(pickle.dumps(subset)).train_labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_hash_of_the_stream_tells_the_parts_apart() -> None:
    hashes = set()
    for part in ("tuning", "evaluation"):
        for seed in (0, 3):
            stream = ContinualDataModule(ClassSubset(source(), part, seed=seed), ClassIncremental(num_tasks=3))
            stream.setup()
            hashes.add(stream.info.fingerprint)
    assert len(hashes) == 4


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"`part` is .test.; give"):
        ClassSubset(source(), "test")
    with pytest.raises(ValueError, match="extend a stream by a `ClassSubset`"):
        ClassSubset(ExtendedSource([source(), source()], ["new"]))
    for classes in ([], [1, 1], [6], [-1]):
        with pytest.raises(ValueError, match=r"give some of 0\.\.5, each once"):
            opened(classes=classes)
