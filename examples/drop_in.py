"""A torchvision ResNet in a plain LightningModule learns five tasks in one fit: class means instead of a trained head.

    python examples/drop_in.py

Nothing in the module knows of continual learning. The stream shows two digits at a time; the callback keeps a mean of
the network's features for every class. Try `FineTuning()` in its place to see what forgetting looks like.
"""

from __future__ import annotations

import torch
import torchvision
from lightning import LightningModule, Trainer, seed_everything

from lightning_cl.callbacks import ContinualEvaluation, PrototypeClassifier
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, Digits


class ResNet(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torchvision.models.resnet18(weights=None, num_classes=10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.03, momentum=0.9)


def main() -> None:
    seed_everything(0)
    stream = ContinualDataModule(Digits(image_size=32, rgb=True), ClassIncremental(num_tasks=5), batch_size=64)
    callbacks = [PrototypeClassifier(), ContinualEvaluation()]
    trainer = Trainer(max_epochs=-1, accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False)
    trainer.fit(ResNet(), datamodule=stream)


if __name__ == "__main__":
    main()
