"""A blurry online stream of 66 separable images, a module with dropout and a torchmetric, and runs over it."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lightning_cl.callbacks import AnytimeEvaluation
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.datamodules.scenarios.base import Scenario

NUM_CLASSES, NUM_TASKS = 6, 3
TRAIN, TEST = 11, 7  # images of each class
SIZES = (25, 14, 27)  # training samples of each task; batches of 5 end short in the last two
BATCH_SIZE = 5


class Blurry(Scenario):
    """Three tasks that share classes; in each, one class arrives late."""

    order = "stream"

    def train_tasks(self, labels: Tensor, domains: Any, num_classes: int, seed: int) -> list[Tensor]:
        draw = torch.Generator().manual_seed(5)
        major = (labels // 2).float() * 10 + torch.rand(len(labels), generator=draw) * 14  # tasks run into each other
        parts = list(torch.split(major.argsort(), SIZES))
        late = [part[(labels[part] == 2 * task + 1).long().argsort(stable=True)] for task, part in enumerate(parts)]
        return [late[0], parts[1], late[2]]


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright row for the class, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(NUM_CLASSES), count)
    pixels = rng.integers(0, 160, (len(labels), 8, 8))
    pixels[np.arange(len(labels)), labels] += 90
    return pixels.astype(np.uint8), labels


def make_stream(**options: Any) -> ContinualDataModule:
    source = options.pop("source", None) or ArraySource(
        images(TRAIN, 0), images(TEST, 1), augment="flip", mean=(0.4,), std=(0.25,)
    )
    scenario = options.pop("scenario", None) or Blurry()
    return ContinualDataModule(source, scenario, **{"batch_size": BATCH_SIZE, "eval_batch_size": 8, **options})


def offline(**options: Any) -> ContinualDataModule:
    scenario = ClassIncremental(num_tasks=NUM_TASKS, class_order=range(NUM_CLASSES))
    return make_stream(scenario=scenario, epochs_per_task=(2, 1, 2), **options)


class Module(LightningModule):
    def __init__(self, dropout: float = 0.0, outputs: int = NUM_CLASSES) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(16, outputs)
        self.accuracy = MulticlassAccuracy(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        logits = self(batch[0])
        self.accuracy(logits, batch[1])
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.5)


def fit(
    *callbacks: Callback,
    stream: ContinualDataModule | None = None,
    module: Any = None,
    dropout: float = 0.0,
    folder: Path | None = None,
    ckpt_path: Any = None,
    **options: Any,
) -> tuple[Any, Trainer]:
    seed_everything(3, verbose=False)
    module = Module(dropout) if module is None else module
    defaults = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": -1,
        "enable_model_summary": False, "num_sanity_val_steps": 0, "default_root_dir": folder,
        "enable_checkpointing": any("Checkpoint" in type(c).__name__ for c in callbacks),
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(**{**defaults, **options}, callbacks=list(callbacks))
        trainer.fit(module, datamodule=make_stream() if stream is None else stream, ckpt_path=ckpt_path)
    return module, trainer


class ByHand(Callback):
    """Evaluates a copy of the module when the definition says so, on its own knowledge of the data and the stream."""

    def __init__(self, every: int, updates: int = 1, online: bool = True) -> None:
        self.every, self.updates, self.online = every, updates, online
        self.seen, self.due, self.steps = 0, every, 0
        self.exposed: set[int] = set()
        self.points: list[dict[str, Any]] = []
        self.predicted: list[tuple[int, int]] = []  # before training on them: right, all

    def predict(self, module: Any, pixels: Tensor) -> Tensor:
        twin = copy.deepcopy(module)
        for hooks in (twin.head._forward_hooks, twin.head._forward_hooks_with_kwargs):
            hooks.clear()
        with torch.no_grad():
            logits = twin.eval()(pixels)
        allowed = sorted(self.exposed)
        return torch.tensor(allowed)[logits[:, allowed].argmax(1)]

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        new = trainer.datamodule.train_batch_size(batch_idx)  # behind these are replayed samples
        pixels, labels = batch[0][:new], batch[1][:new]
        if self.online:
            self.exposed |= set(labels.tolist())
        else:
            self.exposed |= set(range(2 * (trainer.datamodule.task_index + 1)))
        if self.steps % self.updates == 0:
            self.predicted.append((int((self.predict(pl_module, pixels) == labels).sum()), new))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps += 1
        if self.steps % self.updates:
            return
        self.seen += self.predicted[-1][1]
        if self.seen >= self.due:
            while self.due <= self.seen:
                self.due += self.every
            self.points.append(self.evaluate(pl_module, trainer.datamodule.task_index))

    def evaluate(self, module: Any, task: int) -> dict[str, Any]:
        pixels, labels = images(TEST, 1)
        answers = self.predict(module, (torch.tensor(pixels).float()[:, None] / 255 - 0.4) / 0.25)
        right = (answers == torch.tensor(labels)).tolist()
        correct, total = [0] * NUM_CLASSES, [0] * NUM_CLASSES
        for hit, label in zip(right, labels.tolist(), strict=True):
            if label in self.exposed:
                correct[label] += hit
                total[label] += 1
        return {"seen": self.seen, "task": task, "exposed": len(self.exposed), "correct": correct, "total": total}


def state(evaluation: AnytimeEvaluation) -> dict[str, Any]:
    """Everything that was measured, to compare."""
    return {name: value.tolist() for name, value in evaluation.curve.state_dict().items()}
