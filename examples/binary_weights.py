"""Binary weights that remember by their uncertainty: the posterior of each task is the prior of the next.

In the style of arXiv:2212.02846. The tasks are the digits, each time with their pixels in another order; `strength=0`
leaves the prior out, which is plain fine-tuning in field space.
"""

from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.datamodules import ContinualDataModule, DatasetSource, DomainIncremental
from lightning_cl.nn.binary_weights import BinaryLinear


class BinaryNet(LightningModule):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.net = share, nn.Sequential(BinaryLinear(64, 512), nn.ReLU(), BinaryLinear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        return 3 * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        nats = sum(layer.divergence() for layer in self.net[::2])
        return nn.functional.cross_entropy(self(batch[0]), batch[1]) + self.share * nats

    def on_task_end(self, task: Any) -> None:
        for layer in self.net[::2]:
            layer.consolidate()
        self.optimizers().optimizer.state.clear()  # the next task begins with a fresh Adam

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def main(strength: float = 1.0, epochs: int = 5, **trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    x, y = (torch.from_numpy(found) for found in load_digits(return_X_y=True))
    pixels, labels = torch.cat([x[:, torch.randperm(64)].float() / 8 for _ in range(3)]), y.repeat(3)
    domains, held_out = torch.arange(3).repeat_interleave(len(y)), torch.arange(3 * len(y)) % 5 == 0
    train, test = (TensorDataset(pixels[rows], labels[rows]) for rows in (~held_out, held_out))
    source = DatasetSource(train, test, train_domains=domains[~held_out], test_domains=domains[held_out])
    stream = ContinualDataModule(source, DomainIncremental(), batch_size=64, epochs_per_task=epochs)
    model, evaluation = BinaryNet(3 * strength / len(train)), ContinualEvaluation(metric=MulticlassAccuracy(10))
    Trainer(max_epochs=-1, callbacks=[evaluation], **trainer_options).fit(model, datamodule=stream)
    return evaluation


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
