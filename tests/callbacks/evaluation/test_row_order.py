"""A step may sort its batch: the samples are found again by what the network was given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conformance.modules import PLAIN, PlainModule
from conformance.runs import train

from lightning_cl.callbacks import AnytimeEvaluation, ItemCurves, PrototypeClassifier
from lightning_cl.callbacks.evaluation.row_order import in_order, order_of

IMAGES = torch.arange(24.0).view(4, 1, 2, 3)
ORDER = torch.tensor([2, 0, 3, 1])


def places(batch: Any, *given: torch.Tensor) -> list[int] | None:
    found = order_of(batch, given)
    return None if found is None else found.tolist()


def test_where_the_samples_of_a_batch_stand() -> None:
    moved = IMAGES[ORDER]
    assert places((IMAGES, torch.arange(4)), moved) == ORDER.argsort().tolist()
    assert torch.equal(in_order(moved, order_of([IMAGES], [moved])), IMAGES)
    assert places({"image": IMAGES, "label": torch.arange(4)}, torch.ones(4, 2), moved) == [1, 3, 0, 2]
    double = torch.stack([IMAGES[0], IMAGES[0], IMAGES[1]])  # equal samples keep their places
    assert places([double], double[[2, 1, 0]]) == [1, 1, 0]


@pytest.mark.parametrize(
    "given",
    [IMAGES, IMAGES.clone(), IMAGES + 0.5, IMAGES[:2], IMAGES.double(), IMAGES.flatten(1)],
    ids=["the batch", "a copy", "augmented", "a part", "another type", "another shape"],
)
def test_else_they_stand_as_in_the_batch(given: torch.Tensor) -> None:
    assert places((IMAGES, torch.arange(4)), given) is None


class Sorting(PlainModule):
    """Shuffles every evaluation batch, and counts for itself."""

    shuffles, told = True, False

    def on_validation_start(self) -> None:
        self.hits: list[torch.Tensor] = []
        self.generator = torch.Generator().manual_seed(0)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        rows = torch.randperm(len(batch[1]), generator=self.generator)
        images, labels = (part[rows] if self.shuffles else part for part in batch)
        chosen = self(images).argmax(1)
        self.hits.append(chosen == labels)
        return {"preds": chosen} if self.told else None


def measured(folder: Any, **attributes: bool) -> tuple[torch.Tensor, ...]:
    case = replace(PLAIN, build=lambda *given: type("Members", (Sorting,), attributes)(*given))
    anytime = AnytimeEvaluation(every_n_samples=20, report=False)
    curves = ItemCurves(report=False)
    run = train(case, PrototypeClassifier(), folder, callbacks=[anytime, curves], stream_options={"epochs_per_task": 1})
    last = torch.cat(run.module.hits).sum()
    assert last > 30  # of 42, or the order would not matter
    assert run.evaluation.correct["class_il"][-1].sum() == last
    assert not any("after the head" in note for note in run.evaluation.notes())
    return run.evaluation.correct["task_il"], anytime.curve.correct, curves.answers


@pytest.mark.parametrize("told", [False, True], ids=["logits", "preds"])
def test_all_evaluations_count_a_sorted_batch_as_the_module_does(told: bool, tmp_path: Any) -> None:
    for found, expected in zip(measured(tmp_path, told=told), measured(tmp_path, shuffles=False), strict=True):
        assert torch.equal(found, expected)
