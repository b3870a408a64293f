"""Several labels a sample: two digits side by side, of which each task shows and names its own.

    python examples/multi_label.py

The macro F1 of every task's pictures after every task is the matrix of the report; `MultiLabelEvaluation` has the mean
average precision and the F1 of the literature.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.classification import MultilabelF1Score

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.datamodules import ContinualDataModule, MultiLabelIncremental, MultiLabelSource


class Tagger(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"preds": self(batch[0]), "target": batch[1].long()}  # as the metric takes them

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def main(**trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    digits = load_digits()
    left, right = torch.randint(len(digits.target), (2, 1500))
    pictures = torch.from_numpy(digits.images).float() / 16
    pairs, names = torch.cat([pictures[left], pictures[right]], dim=2), torch.from_numpy(digits.target)
    labels = nn.functional.one_hot(names[left], 10) | nn.functional.one_hot(names[right], 10)
    source = MultiLabelSource((pairs[:1200], labels[:1200]), (pairs[1200:], labels[1200:]), layout="NHW")
    stream = ContinualDataModule(source, MultiLabelIncremental(num_tasks=2), batch_size=32, epochs_per_task=3)
    evaluation = ContinualEvaluation(metric=MultilabelF1Score(num_labels=10, average="micro"))
    Trainer(max_epochs=-1, callbacks=[evaluation], **trainer_options).fit(Tagger(), datamodule=stream)
    return evaluation


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
