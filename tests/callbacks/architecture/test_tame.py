from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn

from lightning_cl.callbacks import TAME
from lightning_cl.datamodules import ArraySource, ContinualDataModule, StreamTable


class Net(LightningModule):
    def __init__(self, classes):
        super().__init__()
        self.body, self.fc = nn.Linear(4, 8), nn.Linear(8, classes)

    def forward(self, x):
        return self.fc(self.body(x).relu())

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.5)


def blobs(order):
    """Blocks of 160 samples in one pass: of A, classes 0 and 1, or of B, classes 2 and 3, which look otherwise."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.permutation(np.arange(160) % 2) + (2 if part == "B" else 0) for part in order])
    centres = np.eye(4) * 3
    inputs = (centres[labels] + 0.1 * rng.standard_normal((len(labels), 4))).astype(np.float32)
    source = ArraySource((inputs, labels), (inputs[::4], labels[::4]), layout="ND")
    place = torch.arange(len(labels))
    table = StreamTable(place, torch.zeros_like(place), place, torch.from_numpy(labels))
    return ContinualDataModule(source, table.as_scenario(order="stream"), batch_size=8)


def fitted(order, **options):
    torch.manual_seed(0)
    stream, module = blobs(order), Net(2 * len(set(order)))
    method = TAME(memory_size=60, window=10, cooldown=10, **options)
    trainer = Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, callbacks=[method], enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=stream)
    return module.eval(), module.continual.parts["tame"], stream


def test_a_task_that_comes_back_finds_its_expert_and_samples_find_theirs():
    module, part, stream = fitted("ABA")
    assert (part.count, part.active.value) == (2, 1)
    inputs = torch.stack([stream.source.item("test", i)[0] for i in range(len(stream.source.test_labels))])
    with torch.no_grad():
        answers = module(inputs).argmax(1)
    assert (answers == stream.source.test_labels).float().mean() > 0.95
    memory = module.continual.memory  # who learned what is remembered with it
    experts, labels = memory.extras["expert"][memory.buffer.used], memory.buffer.labels[memory.buffer.used]
    assert (experts == 1 + (labels >= 2)).float().mean() > 0.9


def test_one_task_has_one_expert_and_a_full_house_goes_on_with_the_best():
    assert fitted("A")[1].count == 1
    assert fitted("AB", max_experts=1)[1].count == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 1}, "a detector needs samples"),
        ({"max_experts": 0}, "`max_experts`"),
        ({"smoothing": 2}, "in \\(0, 1"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TAME(**wrong)
