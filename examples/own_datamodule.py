"""A LightningDataModule that you already have becomes a stream; the data sets and transforms stay its own.

    python examples/own_datamodule.py

`DataModuleSource` asks it for its train and test loaders and takes the data sets behind them. Labels are read from
`.targets` or `.labels`, so that no image is decoded to plan the stream; `train_targets=` gives them otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

from lightning_cl.callbacks import ContinualEvaluation, PrototypeClassifier
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DataModuleSource
from lightning_cl.models import ImageClassifier


class Drawings(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, train: bool) -> None:
        digits = load_digits()
        rows = (np.arange(len(digits.target)) % 5 > 0) == train  # every fifth is for testing
        self.images = torch.tensor(digits.images[rows], dtype=torch.float32)[:, None].div(16)  # (N, 1, 8, 8) in [0, 1]
        self.targets = digits.target[rows].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index].repeat_interleave(2, 1).repeat_interleave(2, 2), self.targets[index]  # (1, 16, 16)


class MyDataModule(LightningDataModule):  # knows nothing of continual learning
    def setup(self, stage: str) -> None:
        self.train, self.test = Drawings(train=True), Drawings(train=False)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, batch_size=64, shuffle=True)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test, batch_size=64)


def main(**trainer_options: Any) -> None:
    seed_everything(0)
    stream = ContinualDataModule(DataModuleSource(MyDataModule()), ClassIncremental(num_tasks=5), batch_size=64)
    model = ImageClassifier("vit_nano_omniglot", num_classes=10)
    Trainer(max_epochs=-1, callbacks=[PrototypeClassifier(), ContinualEvaluation()], **trainer_options).fit(
        model, datamodule=stream
    )


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
