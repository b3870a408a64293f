"""A stream of a few dozen random images with tasks of different sizes, a small network, and a callback that writes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule

NUM_CLASSES, NUM_TASKS = 6, 3
#: Training samples per class: tasks of 7, 11 and 15 samples.
SIZES = (3, 4, 5, 6, 7, 8)
EPOCHS = (2, 1, 2)
BATCH_SIZE = 4
#: Batches per epoch of each task; the last one is short in all of them.
BATCHES = (2, 3, 4)


def make_source(augment: str = "crop", sizes: Sequence[int] = SIZES, **options: Any) -> ArraySource:
    rng = np.random.default_rng(0)
    splits = []
    for counts in (sizes, [3] * len(sizes)):
        labels = np.repeat(np.arange(len(sizes)), counts)
        splits.append((rng.integers(0, 256, (len(labels), 8, 8), dtype=np.uint8), labels))
    return ArraySource(*splits, augment=augment, **options)


def make_stream(**options: Any) -> ContinualDataModule:
    source = options.pop("source", None) or make_source(options.pop("augment", "crop"))
    scenario = options.pop("scenario", None) or ClassIncremental(num_tasks=NUM_TASKS, class_order=range(NUM_CLASSES))
    return ContinualDataModule(source, scenario, **{"batch_size": BATCH_SIZE, "epochs_per_task": EPOCHS, **options})


class TinyModule(LightningModule):
    """Two layers with dropout between them; logs ``val_loss``."""

    def __init__(self, dropout: float = 0.0, lr: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, NUM_CLASSES)
        )
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]), batch_size=len(batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]), batch_size=len(batch[1]))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).argmax(-1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def make_trainer(folder: Path | str | None = None, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trainer(**{**defaults, **options}, callbacks=list(callbacks))


class Spy(Callback):
    """Writes down what happens, as ``(event, epoch, detail)``."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, Any]] = []

    def _note(self, trainer: Trainer, event: str, detail: Any = None) -> None:
        if not trainer.sanity_checking:
            self.events.append((event, trainer.current_epoch, detail))

    def of(self, *names: str) -> list[tuple[str, int, Any]]:
        return [event for event in self.events if event[0] in names]

    def on_task_start(self, trainer: Trainer, pl_module: LightningModule, task: Any) -> None:
        self._note(trainer, "task_start", task.index)

    def on_task_end(self, trainer: Trainer, pl_module: LightningModule, task: Any) -> None:
        self._note(trainer, "task_end", task.index)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer, "epoch_start", trainer.num_training_batches)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._note(trainer, "batch", batch_idx)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._note(trainer, "batch_end", args[-1])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = trainer.datamodule
        self._note(trainer, "validation", (stream.task_index, len(trainer.val_dataloaders.sampler.plan.index)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer, "epoch_end")
