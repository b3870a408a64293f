"""A regression that learns patients of one age group after the other: no classes, and a lower value is the better.

The mean squared error of every group after every group is the matrix of the report; forgetting is a rise of it.
"""

from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError

from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay
from lightning_cl.datamodules import ContinualDataModule, DatasetSource, DomainIncremental


class Regressor(LightningModule):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self(batch[0]).squeeze(1), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main(**trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    table, target = load_diabetes(return_X_y=True)
    age, held_out = table[:, 0].argsort().argsort() * 3 // len(table), np.arange(len(table)) % 5 == 0
    x, y = (
        torch.from_numpy(table).float() / table.std(),
        torch.from_numpy((target - target.mean()) / target.std()).float(),
    )
    train, test = (TensorDataset(x[rows], y[rows]) for rows in (~held_out, held_out))
    source = DatasetSource(train, test, train_domains=age[~held_out], test_domains=age[held_out], classes=False)
    stream = ContinualDataModule(source, DomainIncremental(), batch_size=32, epochs_per_task=5)
    evaluation = ContinualEvaluation(metric=MeanSquaredError())
    Trainer(max_epochs=-1, callbacks=[ExperienceReplay(100, 16), evaluation], **trainer_options).fit(
        Regressor(x.shape[1]), datamodule=stream
    )
    return evaluation


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
