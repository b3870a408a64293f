"""A torchvision ResNet in a plain LightningModule, and a memory of 200 earlier samples that joins every batch.

    python examples/resnet_replay.py

Take `ExperienceReplay` out of the list to see the network forget: of five tasks it then knows the last one only.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from lightning import LightningModule, Trainer, seed_everything
from torch.nn import functional as F

from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, Digits


class ResNet(LightningModule):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.net = torchvision.models.resnet18(weights=None, num_classes=num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.03, momentum=0.9)


def main(**trainer_options: Any) -> None:
    seed_everything(0)
    source = Digits(image_size=32, rgb=True)
    stream = ContinualDataModule(source, ClassIncremental(num_tasks=5), batch_size=32, epochs_per_task=2)
    callbacks = [ExperienceReplay(memory_size=200, batch_size=32), ContinualEvaluation()]
    Trainer(max_epochs=-1, callbacks=callbacks, **trainer_options).fit(ResNet(), datamodule=stream)


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
