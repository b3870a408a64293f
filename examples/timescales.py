"""A recurrent network is asked about ever more of the last bits: by one head, which forgets, and by one for each order.

The curricula of arXiv:2309.12927 in small: the rows of the matrix are the orders that were learned, its columns those
that are asked.
"""

from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.datamodules import BinarySequences, ContinualDataModule, DomainIncremental
from lightning_cl.nn import LeakyRNN


class Listener(LightningModule):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.net = nn.Sequential(LeakyRNN(1, 64), nn.Linear(64, 2 * heads), nn.Unflatten(1, (2, heads)))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # (B, 2, H)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1].view(len(batch[0]), -1))  # -100 counts nothing

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"preds": self(batch[0]), "target": batch[1].view(len(batch[0]), -1)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def main(heads: str, epochs: int = 8, **trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    source = BinarySequences("match", orders=(2, 3, 4), length=8, samples=1000, heads=heads)
    stream = ContinualDataModule(source, DomainIncremental(), batch_size=50, epochs_per_task=epochs, evaluate_on="all")
    evaluation = ContinualEvaluation(metric=MulticlassAccuracy(2, average="micro", ignore_index=-100))
    trainer = Trainer(max_epochs=-1, callbacks=[evaluation], check_val_every_n_epoch=epochs, **trainer_options)
    trainer.fit(Listener(3 if heads == "several" else 1), datamodule=stream)
    return evaluation


if __name__ == "__main__":
    for heads in ("one", "several"):
        main(heads, accelerator="cpu", logger=False, enable_checkpointing=False)
