"""Small float64 modules with weights large enough that attention is far from uniform; streams and tasks by hand."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_cl.datamodules.task import StreamInfo, Task

NUM_CLASSES = 10


def tiny_vit(**options: Any) -> VisionTransformer:
    """6 blocks of width 48 with 4 heads, 32-pixel images in 16 patches; in evaluation mode."""
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 6, "num_heads": 4, "num_classes": NUM_CLASSES}
    torch.manual_seed(0)
    return shaken(VisionTransformer(**{**shape, **options}).double().eval())


def shaken(module: Any) -> Any:
    """The module with all parameters moved at random."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    return module


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TinyModule(LightningModule):
    """A classifier as a user writes it."""

    def __init__(self, optimizer: str = "adamw", **options: Any) -> None:
        super().__init__()
        self.net = tiny_vit(**options)
        self.kind = optimizer

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Any:
        if self.kind == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)


def stream_info(num_tasks: int = 5, num_classes: int = NUM_CLASSES) -> StreamInfo:
    """Tasks of equal size, classes in their natural order."""
    size = num_classes // num_tasks
    held = tuple(tuple(range(t * size, (t + 1) * size)) for t in range(num_tasks))
    return StreamInfo(num_tasks, num_classes, tuple(map(str, range(num_classes))), held, "f" * 64)


def task_of(info: StreamInfo, index: int) -> Task:
    held = info.classes_per_task[index]
    return Task(index, held, held, info.seen_classes(index), first_epoch=index, epochs=1)


def train(module: Any, classes: tuple[int, ...], steps: int = 2, optimizer: Any = None) -> Any:
    """Optimiser steps on random images of some classes; the optimiser."""
    optimizer = optimizer or module.configure_optimizers()
    module.train()
    for step in range(steps):
        labels = torch.tensor(classes).repeat(4)
        optimizer.zero_grad()
        module.training_step((images(len(labels), seed=step), labels), step).backward()
        optimizer.step()
    return optimizer
