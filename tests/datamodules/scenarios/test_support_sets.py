"""Support sets: which classes and images come in each, with labels of their own or overwritten ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import ArraySource, ContinualDataModule, OverwrittenLabels, Source, SupportSets

CLASSES, EACH = 7, 6


def source() -> ArraySource:
    """Every image is grey in a level of its own, the same in both splits."""
    labels = np.repeat(np.arange(CLASSES), EACH)
    images = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 4, 4, 1)).copy()
    return ArraySource((images, labels), (images[::3], labels[::3]), augment="none")


def stream(scenario: SupportSets, data: Source | None = None) -> ContinualDataModule:
    made = ContinualDataModule(data or source(), scenario, batch_size=4, seed=3)
    made.setup()
    return made


@pytest.mark.parametrize(("sets", "change_every"), [(3, 1), (4, 2), (5, 2), (6, 6)])
def test_classes_change_after_so_many_sets_and_no_image_comes_twice(sets: int, change_every: int) -> None:
    shots = 1 if change_every == 6 else 2
    made = stream(SupportSets(sets, 2, shots, change_every))
    tasks = made.layout.train_index
    assert len(tasks) == sets
    every = torch.cat(list(tasks))
    assert len(every.unique()) == len(every) == sets * 2 * shots
    held = [tuple(made.source.train_labels[index].unique().tolist()) for index in tasks]
    for task, index in enumerate(tasks):
        assert made.source.train_labels[index].bincount().max() == shots
        assert (task > 0 and held[task] == held[task - 1]) == (task % change_every > 0)
        assert held[task] == made.info.classes_per_task[task]
    groups = [held[first] for first in range(0, sets, change_every)]
    assert len({c for group in groups for c in group}) == 2 * len(groups)  # labels go on
    evaluated = torch.cat(list(made.layout.evaluation["test"].index))
    assert sorted(made.source.test_labels[evaluated].unique().tolist()) == sorted(c for g in groups for c in g)


def test_a_seed_is_an_episode() -> None:
    first, again = (stream(SupportSets(3, 2, 1)).layout.train_index for _ in range(2))
    other = stream(SupportSets(3, 2, 1, seed=8)).layout.train_index
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_overwritten_labels_begin_anew_with_every_change() -> None:
    data = OverwrittenLabels(source(), ways=2, seed=1)
    made = stream(SupportSets(6, 2, 2, change_every=2), data)
    assert data.num_classes == 2
    original = np.repeat(np.arange(CLASSES), EACH)
    held = []
    for index in made.layout.train_index:
        assert data.train_labels[index].bincount().tolist() == [2, 2]
        held.append(sorted({int(original[data.index["train"][i]]) for i in index.tolist()}))
        for i in index.tolist():
            image, label = data.item("train", i)
            level = int(np.asarray(image).flat[0])
            assert original[level] == original[data.index["train"][i]]  # the source's image
            assert label == data.train_labels[i]
    assert held[0] == held[1] != held[2] == held[3] != held[4] == held[5]
    assert len({c for classes in held for c in classes}) == 6  # one class fills no group
    sizes = [len(index) for index in made.layout.evaluation["test"].index]
    assert sizes == [4, 0, 4, 0, 4, 0]
    for group, index in enumerate(made.layout.evaluation["test"].index[::2]):
        there = {int(original[::3][data.index["test"][i]]) for i in index.tolist()}
        assert sorted(there) == held[2 * group]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SupportSets(ways=0), "`ways` is 0; give at least 1"),
        (
            lambda: stream(SupportSets(5, 2, 1)),
            "5 sets that change after every 1 need 10 classes, but there are 7",
        ),
        (lambda: stream(SupportSets(4, 2, 4, 2)), "a class has 6 images, but its sets take 8, 4 each; lower `shots`"),
        (lambda: OverwrittenLabels(source(), 0), "`ways` is 0; give at least 1"),
        (lambda: OverwrittenLabels(source(), 9).setup(), "`ways` is 9, but the source has 7 classes"),
        (
            lambda: stream(SupportSets(3, 3, 1), OverwrittenLabels(source(), 2)),
            "`ways` is 3, but the domains have 2, 2, 2 classes",
        ),
        (
            lambda: stream(SupportSets(4, 2, 1), OverwrittenLabels(source(), 2)),
            "4 sets that change after every 1 need 4 domains, but there are 3",
        ),
    ],
)
def test_what_cannot_be_dealt_out_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
