"""Segmentation that learns digits as ink on paper, then as chalk on a board, then in noise.

    python examples/segmentation.py

The intersection over union of ink after every task is the matrix of the report.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import BinaryJaccardIndex

from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay
from lightning_cl.datamodules import ContinualDataModule, DatasetSource, DomainIncremental


class Segmenter(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU())
        self.net = nn.Sequential(*layers, nn.Conv2d(16, 1, 1), nn.Flatten(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # (B, H, W) logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1].float())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main(**trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    pictures = torch.from_numpy(load_digits().images).float()[:, None] / 16
    masks = (pictures[:, 0] > 0.5).long()
    domain = torch.arange(len(pictures)) % 3
    shown = torch.stack([1 - pictures, pictures, 0.7 * pictures + 0.3 * torch.rand_like(pictures)])
    x, held_out = shown[domain, torch.arange(len(pictures))], torch.arange(len(pictures)) % 5 == 0
    train, test = (TensorDataset(x[rows], masks[rows]) for rows in (~held_out, held_out))
    source = DatasetSource(train, test, train_domains=domain[~held_out], test_domains=domain[held_out], classes=False)
    stream = ContinualDataModule(source, DomainIncremental(), batch_size=64, epochs_per_task=2)
    evaluation = ContinualEvaluation(metric=BinaryJaccardIndex())
    callbacks = [ExperienceReplay(memory_size=60, batch_size=30), evaluation]
    Trainer(max_epochs=-1, callbacks=callbacks, **trainer_options).fit(Segmenter(), datamodule=stream)
    return evaluation


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
