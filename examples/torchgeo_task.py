"""Torchgeo's ClassificationTask as it is, with its dictionaries as batches, learns land use class after class.

    pip install torchgeo
    python examples/torchgeo_task.py

The images here are the digits in red, green and blue; `DataModuleSource(torchgeo.datamodules.EuroSATDataModule(...))`
or an `ImageFolder` of your own goes into the same place.
"""

from __future__ import annotations

from typing import Any

from lightning import Trainer, seed_everything
from torchgeo.trainers import ClassificationTask

from lightning_cl.callbacks import ContinualEvaluation, FineTuning
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, Digits


def main(**trainer_options: Any) -> None:
    seed_everything(0)
    task = ClassificationTask(model="resnet18", in_channels=3, num_classes=10, lr=1e-3)
    stream = ContinualDataModule(
        Digits(image_size=32, rgb=True),
        ClassIncremental(num_tasks=5),
        batch_size=64,
        batch_keys=("image", "label"),  # the names that torchgeo gives them
        val_split=0.1,  # the task's schedule follows `val_loss`, which must not be that of the test data
    )
    callbacks = [FineTuning(train_mask="task"), ContinualEvaluation()]
    Trainer(max_epochs=-1, callbacks=callbacks, **trainer_options).fit(task, datamodule=stream)


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
