"""ItemCurves: answers of every sample as the model gives them, one byte each, and files that say so."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from datamodules.tiny_stream import TinyModule, make_stream, make_trainer
from torch import Tensor

from lightning_cl.callbacks import ContinualEvaluation, FineTuning, ItemCurves
from lightning_cl.metrics.functional import item_times
from lightning_cl.reports.report import read


class Asked(TinyModule):
    """Answers all test images after every validation, in the order of the split."""

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.rows: list[Tensor] = []

    def on_validation_epoch_end(self) -> None:
        stream = self.trainer.datamodule
        labels = stream.eval_data("val").labels
        loader = stream.anytime_dataloader(torch.arange(len(labels)))
        images = torch.cat([batch[0] for batch in loader])
        logits = self(images)
        seen = list(stream.exposed_classes)
        self.rows.append(torch.tensor(seen)[logits[:, seen].argmax(1)] == labels)


@pytest.mark.pictures
def test_it_tells_what_happened_to_every_sample(tmp_path: Path) -> None:
    torch.manual_seed(0)
    curves, module = ItemCurves(), Asked()
    trainer = make_trainer(tmp_path, (FineTuning(), curves, ContinualEvaluation(print_table=False)))
    stream = make_stream()
    trainer.fit(module, datamodule=stream)
    assert curves.answers.dtype == torch.uint8
    assert curves.answers.shape == (5, 18)  # validations of 2, 1 and 2 epochs; test images
    tasks = stream.eval_data("val").task_of
    for row, right, seen in zip(curves.answers, module.rows, (0, 0, 1, 2, 2), strict=True):
        looked = tasks <= seen
        assert torch.equal(row == 255, ~looked)
        assert torch.equal(row[looked].bool(), right[looked])
    report = read(tmp_path)
    facts: Any = report.facts["ItemCurves"]
    times = item_times(curves.answers)
    assert facts["samples"] == 18
    assert facts["never_learned"] + facts["never_lost"] + facts["lost"] == 18
    assert facts["lost"] == int((times.lost >= 0).sum()) > 0
    assert facts["retention"][0] == 1
    final = float((curves.answers[-1] == 1).double().mean())
    assert final == float(report.class_il[-1].mean())
    lines = list(csv.DictReader((tmp_path / "item_curves.csv").open()))
    assert [int(line["learned"]) for line in lines] == times.learned.tolist()
    assert (tmp_path / "item_curves.png").read_bytes().startswith(b"\x89PNG")
    other = ItemCurves()
    other.setup(trainer, module, "fit")
    other.load_state_dict(curves.state_dict())
    assert torch.equal(other.answers, curves.answers)
    assert other.lines() == curves.lines()
