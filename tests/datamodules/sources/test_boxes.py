"""Images with boxes of several classes: which come in which task, and which boxes are seen there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_cl.datamodules import BoxSource, ContinualDataModule, MultiLabelIncremental
from lightning_cl.datamodules.sources.boxes import kept_boxes

CLASSES = [[0, 0], [0, 1], [2], [1, 2, 3], [3]]


def items(classes: Any = CLASSES, first: int = 1) -> list[Any]:
    made = []
    for number, held in enumerate(classes):
        count = len(held)
        target = {
            "boxes": torch.arange(4.0 * count).view(count, 4),
            "labels": torch.tensor(held) + first,
            "masks": torch.zeros(count, 2, 2, dtype=torch.bool),
            "image_id": number,
        }
        made.append((torch.zeros(1, 2 + number, 2), target))
    return made


def stream_of(scenario: Any, **options: Any) -> ContinualDataModule:
    stream = ContinualDataModule(BoxSource(items(), items(), CLASSES, CLASSES, **options), scenario, batch_size=2)
    stream.setup()
    return stream


def test_images_come_in_every_task_that_holds_one_of_their_classes():
    stream = stream_of(MultiLabelIncremental(num_tasks=2, class_order=[0, 1, 2, 3]))
    assert [index.tolist() for index in stream.layout.train_index] == [[0, 1, 3], [2, 3, 4]]
    assert [index.tolist() for index in stream.eval_data("test").index] == [[0, 1, 3], [2, 4]]
    images, targets = next(iter(stream.train_dataloader()))
    assert isinstance(images, list)
    assert isinstance(targets, list)
    assert len(images) == len(targets) == 2


@pytest.mark.parametrize("training", [True, False])
def test_boxes_of_other_tasks_are_left_out_with_all_that_belongs_to_them(training):
    stream = stream_of(MultiLabelIncremental(num_tasks=2, class_order=[0, 1, 2, 3]))
    stream.last_task = 1
    trainer: Any = SimpleNamespace(training=training, datamodule=stream)
    batch = ([items()[3][0]], [items()[3][1]])
    _, (target,) = stream.source.batch_hooks["on_after_batch_transfer"](trainer, batch, 0)
    kept = [1, 2] if training else [0, 1, 2]  # of classes 1, 2 and 3, of which 2 and 3 are the task's
    assert target["labels"].tolist() == [[2, 3, 4][row] for row in kept]
    assert torch.equal(target["boxes"], items()[3][1]["boxes"][kept])
    assert (len(target["masks"]), target["image_id"]) == (len(kept), 3)


def test_an_image_without_a_box_left_keeps_empty_tensors():
    target = kept_boxes(items()[0][1], torch.tensor([9]))
    assert (target["boxes"].shape, target["masks"].shape, target["image_id"]) == ((0, 4), (0, 2, 2), 0)


def test_what_is_of_the_image_stays_whole():
    """Height and width are two numbers, and so are the labels of two boxes; an id is one, as is a box."""
    sizes = {"orig_size": torch.tensor([4, 7]), "size": torch.tensor([8, 14]), "image_id": torch.tensor([5])}
    for held, count in (([0, 1], 1), ([1], 0)):
        target = kept_boxes({**items([held])[0][1], **sizes}, torch.tensor([1]))
        assert len(target["labels"]) == len(target["boxes"]) == count
        assert all(torch.equal(target[name], size) for name, size in sizes.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((items(), items(), CLASSES[:2], CLASSES), "the train data set has 5 images, but `train_classes` 2 lists"),
        (
            (items(), items(), [*CLASSES[:4], []], CLASSES),
            "1 of the train labels have no class, the first at position 4",
        ),
        ((items(first=0), items(), CLASSES, CLASSES), r"image 0 .* of the classes \[-1\] \(labels from 1\)"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words):
    def use() -> None:
        source = BoxSource(*arguments)
        source.setup()
        source.item("train", 0)

    with pytest.raises(ValueError, match=words):
        use()
