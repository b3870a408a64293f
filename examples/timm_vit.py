"""A pre-trained timm ViT in a LightningModule, with its own schedule and torchmetric, learns with CODA-Prompt.

    python examples/timm_vit.py

The ViT here is the small one that comes with the package, so that the script runs offline in two minutes on a CPU. With
`timm.create_model("vit_base_patch16_224", pretrained=True, num_classes=100)` and `CIFAR100("data", image_size=224)` it
is the same script.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
import torchmetrics
from lightning import LightningModule, Trainer, seed_everything
from torch.nn import functional as F

import lightning_cl.models  # noqa: F401  (registers the small ViT with timm)
from lightning_cl.callbacks import CODAPrompt, ContinualEvaluation
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, Digits


class ViT(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("vit_nano_omniglot", pretrained=True, num_classes=10)
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=10)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.accuracy(self.net(images), labels)
        self.log("val_accuracy", self.accuracy)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=5e-3)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)]  # anew in every task


def main(**trainer_options: Any) -> None:
    seed_everything(0)
    scenario = ClassIncremental(num_tasks=5)
    stream = ContinualDataModule(Digits(image_size=16), scenario, batch_size=32, epochs_per_task=4)
    callbacks = [CODAPrompt(reset_optimizer=True), ContinualEvaluation()]
    Trainer(max_epochs=-1, callbacks=callbacks, **trainer_options).fit(ViT(), datamodule=stream)


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
