"""Small runs with replay: a stream of digits with a last batch of one sample, a small network, and what it got."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import torch
from conformance.streams import NUM_CLASSES, digits
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import default_collate

from lightning_cl.callbacks import (
    ContinualCallback,
    ExperienceReplay,
)
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.datamodules.scenarios.base import Scenario

MEMORY, DRAWN, BATCH = 12, 5, 13


class Online(Scenario):
    """Three tasks of 27 samples; two classes of each are new, and one sample of every task comes in another."""

    order = "stream"

    def train_tasks(self, labels: Tensor, domains: Any, num_classes: int, seed: int) -> list[Tensor]:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(7))
        tasks = [order[labels[order] // 2 == task] for task in range(3)]
        return [torch.cat([task[1:], tasks[n - 1][:1]]) for n, task in enumerate(tasks)]


def make_stream(online: bool = True, **options: Any) -> ContinualDataModule:
    """Batches of 13, 13 and 1: of the last, a second process gets nothing."""
    train, test = digits()
    source = ArraySource(train, test, mean=(0.3,), std=(0.38,), augment=options.pop("augment", "none"))
    scenario = Online() if online else ClassIncremental(num_tasks=3, class_order=range(NUM_CLASSES))
    shape = {"updates_per_batch": 2} if online else {"epochs_per_task": 2}
    return ContinualDataModule(source, scenario, **{"batch_size": BATCH, "seed": 3, **shape, **options})


def parts(batch: Any) -> tuple[Tensor, Tensor]:
    return (batch["image"], batch["label"]) if isinstance(batch, dict) else (batch[0], batch[1])


class Net(LightningModule):
    def __init__(self, net: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = net or nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Dropout(dropout))
        self.fc = nn.Identity() if net else nn.Linear(24, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.net(images))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = parts(batch)
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(parts(batch)[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Steps(ContinualCallback):
    """The batch of every step, what was joined to it, and the classes that had arrived."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.joined: list[Any] = []
        self.exposed: list[tuple[int, ...]] = []
        self.rows: list[Tensor] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        stream = trainer.datamodule
        self.batches.append(batch)
        self.joined.append(stream.joined)
        self.exposed.append(stream.exposed_classes)
        self.rows.append(stream.train_rows(batch_idx))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def replay(**options: Any) -> ExperienceReplay:
    return ExperienceReplay(**{"memory_size": MEMORY, "batch_size": DRAWN, **options})


def fit(
    *callbacks: Callback,
    module: LightningModule | None = None,
    stream: ContinualDataModule | None = None,
    ckpt_path: Any = None,
    dropout: float = 0.0,
    **trainer: Any,
) -> Trainer:
    seed_everything(0, verbose=False)
    fitted = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **trainer,
        },
        callbacks=list(callbacks),
    )
    fitted.fit(module or Net(dropout=dropout), datamodule=stream or make_stream(), ckpt_path=ckpt_path)
    return fitted


def result(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.lightning_module.state_dict().items()}


Sample = namedtuple("Sample", ["image", "label", "name"])


def as_dict(items):
    images, labels = default_collate(items)
    return {"image": images, "meta": {"name": [f"n{c}" for c in labels.tolist()]}, "label": labels}


def as_tuple(items):
    images, labels = default_collate(items)
    return Sample(images, labels, tuple(f"n{c}" for c in labels.tolist()))


def as_list(items):
    return list(default_collate(items))
