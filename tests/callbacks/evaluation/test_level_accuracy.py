"""The accuracy at each level of a label tree, in a fit on coarse labels first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.datamodules import HLE, ArraySource, ClassIncremental, ContinualDataModule, LabelLevels

OPTIONS = {"max_epochs": -1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
OPTIONS |= {"enable_checkpointing": False, "enable_model_summary": False, "num_sanity_val_steps": 0}


class Linear(LightningModule):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(5, classes)

    def forward(self, x):
        return self.fc(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def source():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    inputs = rng.standard_normal((80, 5)).astype(np.float32) + 2 * np.eye(5, dtype=np.float32)[labels]
    parts = ((inputs[:48], labels[:48]), (inputs[48:], labels[48:]))
    return ArraySource(*parts, superclass_of_class=["left", "left", "right", "right"], layout="ND")


@pytest.mark.parametrize("hle", [True, False])
def test_the_report_has_the_accuracy_at_each_level(hle):
    torch.manual_seed(0)
    stream = ContinualDataModule(
        LabelLevels(source()) if hle else source(), HLE(2) if hle else ClassIncremental(2), batch_size=8
    )
    evaluation, module = ContinualEvaluation(report=False, print_table=False), Linear(6 if hle else 4)
    trainer = Trainer(callbacks=[evaluation], **OPTIONS)
    trainer.fit(module, datamodule=stream)
    samples = [stream.source.item("test", i) for i in range(len(stream.source.test_labels))]
    logits = module(torch.stack([x for x, _ in samples])).detach()
    labels = torch.tensor([label for _, label in samples])
    if hle:  # coarse labels are the classes 0 and 1; each competes with its own level
        answers = torch.where(labels < 2, logits[:, :2].argmax(1), logits[:, 2:].argmax(1) + 2)
        wanted = [(answers == labels)[at].float().mean() for at in (labels < 2, labels >= 2)]
        matrix = evaluation.matrix()[-1]
        assert float(matrix[0]) == pytest.approx(float(wanted[0]))
    else:
        answers = logits.argmax(1)
        wanted = [(answers // 2 == labels // 2).float().mean(), (answers == labels).float().mean()]
    metrics = evaluation.build_report(trainer, module).metrics
    assert [metrics[f"level_{n}/level_accuracy"] for n in (0, 1)] == pytest.approx([float(w) for w in wanted])
    assert 0.1 < float(wanted[1]) < float(wanted[0]) < 1
    again = ContinualEvaluation()
    again.total, again.levels = evaluation.total.clone(), torch.zeros_like(evaluation.levels)
    again.load_state_dict(evaluation.state_dict())
    assert torch.equal(again.levels.nan_to_num(-1), evaluation.levels.nan_to_num(-1))
