"""The guard finds labels in batches that must not have them, wherever they stand."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.callbacks.evaluation.data_checks import hidden_labels

LABELS = torch.tensor([0, 3, 1, 3])
IMAGES = torch.rand(4, 1, 5, 5)


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS),
        (IMAGES, torch.full((4,), -1), LABELS.float()),
        {"image": IMAGES, "label": torch.full((4,), -1), "boxes": {"kind": LABELS[:, None]}},
        (IMAGES, torch.stack([torch.arange(4), LABELS], dim=1)),
    ],
    ids=["target", "another part", "nested", "a column"],
)
def test_labels_are_found(batch) -> None:
    check = hidden_labels(batch, LABELS, "task 2")
    assert check.result == "fail"
    assert "of task 2 hold the labels of their samples" in check.message


def test_a_batch_without_them_passes() -> None:
    batch = {"image": IMAGES, "label": torch.full((4,), -1), "index": torch.arange(4), "size": torch.tensor(4)}
    assert hidden_labels(batch, LABELS, "task 2").result == "pass"
    assert hidden_labels((IMAGES, torch.zeros(4)), torch.zeros(4).long(), "task 2").result == "not checked"
