"""One network that classifies digits, dreams of old ones to remember them, and rejects what it has never seen.

In the style of OpenVAE (arXiv:2009.01797). Of what it draws, only what lies within the bound around a class's latents
is decoded and read again beside the next task's digits; `replay=False` leaves that out.
"""

from typing import Any

import torch
from lightning import Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource
from lightning_cl.models import OpenVAE


def main(replay: bool = True, epochs: int = 20, **trainer_options: Any) -> tuple[OpenVAE, ContinualEvaluation]:
    seed_everything(0)
    x, y = (torch.from_numpy(found) for found in load_digits(return_X_y=True))
    held_out = torch.arange(len(y)) % 5 == 0
    train, test = (TensorDataset(x[rows].float() / 16, y[rows]) for rows in (~held_out, held_out))
    source = DatasetSource(train, test, class_names=[str(digit) for digit in range(10)])
    stream = ContinualDataModule(source, ClassIncremental(5, class_order="natural"), 32, epochs)
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
    decoder = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 64), nn.Sigmoid())
    model, evaluation = OpenVAE(encoder, decoder, 8, 10, lr=3e-3, replay=replay, rounds=100), ContinualEvaluation()
    Trainer(max_epochs=-1, callbacks=[evaluation], **trainer_options).fit(model, datamodule=stream)
    return model, evaluation


if __name__ == "__main__":
    model, _ = main(accelerator="cpu", logger=False, enable_checkpointing=False)
    noise = torch.rand(200, 64, generator=torch.Generator().manual_seed(0))
    rejected = model.bound.outlier_probability(model.latents(noise)) > 0.95
    print(f"{100 * float(rejected.float().mean()):.0f} % of random pixels are rejected")
