"""LightningModules to attach methods to: two that strangers wrote, unmodified, and two small ones of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .streams import IMAGE_SIZE, NUM_CLASSES


def tiny_vit(num_classes: int = NUM_CLASSES, **options: Any) -> VisionTransformer:
    """4 tokens and a class token, 3 blocks of width 32."""
    shape = {"img_size": IMAGE_SIZE, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}
    return VisionTransformer(num_classes=num_classes, **{**shape, "in_chans": 1, **options})


@register_model
def vit_conformance(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Reaches modules that make their timm model by name."""
    known = {name: options[name] for name in ("num_classes", "in_chans") if name in options}
    return tiny_vit(**known)


def optimizer_for(module: nn.Module, name: str) -> Any:
    """AdamW whose decay moves weights without a gradient and a schedule by steps, or SGD whose momentum does."""
    parameters = module.parameters()
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.97)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class _Own(LightningModule):
    def __init__(self, optimizer: str) -> None:
        super().__init__()
        self.optimizer_name = optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self(images), labels))

    def configure_optimizers(self) -> Any:
        return optimizer_for(self, self.optimizer_name)


class PlainModule(_Own):
    """A timm ViT with its own head."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer)
        self.net = tiny_vit(drop_rate=dropout)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class SplitModule(_Own):
    """A ViT without a head, and a separate layer."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer)
        self.backbone = tiny_vit(num_classes=0)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(32, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.backbone(images)))


def _foreign_tuple(optimizer: str, dropout: float) -> LightningModule:
    routines = pytest.importorskip("torch_uncertainty.routines")
    # Its optimiser is made here, at construction, before any method can add a parameter.
    return routines.ClassificationRoutine(
        tiny_vit(drop_rate=dropout),
        num_classes=NUM_CLASSES,
        loss=nn.CrossEntropyLoss(),
        optim_recipe=lambda model: optimizer_for(model, optimizer),
    )


def _foreign_dict(optimizer: str, dropout: float) -> LightningModule:
    trainers = pytest.importorskip("torchgeo.trainers")  # its optimiser is AdamW, with a plateau schedule
    return trainers.ClassificationTask(model="vit_conformance", in_channels=1, num_classes=NUM_CLASSES, lr=3e-3)


@dataclass(frozen=True)
class Case:
    """A module and what is known of it.

    Attributes:
        build: From the name of the optimiser and the dropout before the head; a module with its own may ignore them.
        head, backbone: Dotted paths.
        batch_keys: Names of image and label, for modules that take dictionaries.
    """

    name: str
    build: Callable[[str, float], LightningModule]
    head: str
    backbone: str
    batch_keys: tuple[str, str] | None = None


PLAIN = Case("plain", PlainModule, "net.head", "net")
SPLIT = Case("split", SplitModule, "fc", "backbone")
FOREIGN_TUPLE = Case("torch_uncertainty", _foreign_tuple, "model.head", "model")
FOREIGN_DICT = Case("torchgeo", _foreign_dict, "model.head", "model", ("image", "label"))
CASES = [PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT]
