"""LightningModules to attach methods to: two that strangers wrote, unmodified, and two small ones of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import open_clip
import pytest
import torch
from lightning.pytorch import LightningModule
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_cl.models import CLIPClassifier

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


#: 4 tokens and a class token, 3 blocks of width 32 in each tower; the vocabulary is that of CLIP's tokenizer.
TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": IMAGE_SIZE, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 3},
}


def tiny_clip(**parts: Any) -> open_clip.CLIP:
    """A CLIP of random weights; ``parts`` replace those of the configuration."""
    return open_clip.CLIP(**{**TINY_CLIP, **parts})


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


class Asking(LightningModule):
    """Before a module of ours: asks the Trainer for the steps and for a batch, and keeps state in hooks of its own."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer, dropout)  # type: ignore[call-arg]
        for name in ("asked", "averaged", "validated"):
            self.register_buffer(name, torch.zeros(()))

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        self.asked.fill_(steps)
        optimizer = optimizer_for(self, "sgd")
        if self.optimizer_name == "adamw":
            optimizer = optimizer_for(self, "adamw")["optimizer"]
        # The number is in the function alone, which no checkpoint holds.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.9 * step / steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        next(iter(self.trainer.train_dataloader))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        squares = [p.detach().square().mean() for p in self.parameters() if p.requires_grad]
        self.averaged.lerp_(torch.stack(squares).mean(), 0.2)

    def on_validation_end(self) -> None:
        self.validated += 1


class AskingModule(Asking, PlainModule):
    """A user's module with a schedule over all steps, a look at the data, and an average."""


class SplitModule(_Own):
    """A ViT without a head, and a separate layer."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer)
        self.backbone = tiny_vit(num_classes=0)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(32, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.backbone(images)))


class CLIPProbe(nn.Module):
    """The image tower of a CLIP, and a linear layer on its features."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.clip = tiny_clip()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(24, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.clip.encode_image(images.expand(-1, 3, -1, -1))))


class CLIPSplitModule(_Own):
    """As a user writes it who knows open_clip."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer)
        self.net = CLIPProbe(dropout)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class WithoutForward(LightningModule):
    """Its steps call the network by themselves, and count."""

    def __init__(self, net: nn.Module, optimizer: str) -> None:
        super().__init__()
        self.net, self.optimizer_name, self.steps = net, optimizer, 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.steps += 1
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])

    def configure_optimizers(self) -> Any:
        return optimizer_for(self, self.optimizer_name)


class AskingCLIPModule(Asking, CLIPSplitModule):
    """The same on CLIP."""


class _BuiltLater(_Own):
    """A user's module with its network made in a hook."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer)
        self.dropout, self.net = dropout, None

    def network(self) -> nn.Module:
        return tiny_vit(num_classes=self.trainer.datamodule.num_classes, drop_rate=self.dropout)

    def build(self) -> None:
        if self.net is None:
            self.net = self.network()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class BuiltInSetup(Asking, _BuiltLater):
    """In ``setup``, with as many outputs as the stream has classes."""

    def setup(self, stage: str) -> None:
        self.build()


class BuiltInConfigureModel(Asking, _BuiltLater):
    """In ``configure_model``."""

    def configure_model(self) -> None:
        self.build()


class CLIPBuiltInSetup(BuiltInSetup):
    """The same on CLIP."""

    def network(self) -> nn.Module:
        return CLIPProbe(self.dropout)


class CLIPBuiltInConfigureModel(BuiltInConfigureModel):
    """The same on CLIP."""

    def network(self) -> nn.Module:
        return CLIPProbe(self.dropout)


def _clip_classifier(optimizer: str, dropout: float) -> LightningModule:
    sgd, adamw = partial(torch.optim.SGD, lr=0.05, momentum=0.9), partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.1)
    make = sgd if optimizer == "sgd" else adamw
    return CLIPClassifier(TINY_CLIP, None, NUM_CLASSES, optimizer=make, lr_schedule="cosine")


def _foreign_clip(optimizer: str, dropout: float) -> LightningModule:
    routines = pytest.importorskip("torch_uncertainty.routines")
    return routines.ClassificationRoutine(
        CLIPProbe(dropout),
        num_classes=NUM_CLASSES,
        loss=nn.CrossEntropyLoss(),
        optim_recipe=lambda model: optimizer_for(model, optimizer),
    )


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
        stream: Makes the data, if these are no images.
    """

    name: str
    build: Callable[[str, float], LightningModule]
    head: str
    backbone: str
    batch_keys: tuple[str, str] | None = None
    stream: Callable[..., Any] | None = None


PLAIN = Case("plain", PlainModule, "net.head", "net")
WITHOUT_FORWARD = Case("without_forward", lambda opt, p: WithoutForward(tiny_vit(drop_rate=p), opt), "net.head", "net")
ASKING = Case("asking", AskingModule, "net.head", "net")
#: Built later than ``ASKING``, otherwise the same.
IN_SETUP = Case("in_setup", BuiltInSetup, "net.head", "net")
IN_CONFIGURE_MODEL = Case("in_configure_model", BuiltInConfigureModel, "net.head", "net")
SPLIT = Case("split", SplitModule, "fc", "backbone")
FOREIGN_TUPLE = Case("torch_uncertainty", _foreign_tuple, "model.head", "model")
FOREIGN_DICT = Case("torchgeo", _foreign_dict, "model.head", "model", ("image", "label"))
CASES = [PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT]
#: For methods on CLIP, in the place of the case of the same name.
CLIP_CASES = {
    "plain": Case("plain", _clip_classifier, "head", "net"),
    "without_forward": Case("without_forward", lambda opt, p: WithoutForward(CLIPProbe(p), opt), "net.fc", "net.clip"),
    "asking": Case("asking", AskingCLIPModule, "net.fc", "net.clip"),
    "in_setup": Case("in_setup", CLIPBuiltInSetup, "net.fc", "net.clip"),
    "in_configure_model": Case("in_configure_model", CLIPBuiltInConfigureModel, "net.fc", "net.clip"),
    "split": Case("split", CLIPSplitModule, "net.fc", "net.clip"),
    "torch_uncertainty": Case("torch_uncertainty", _foreign_clip, "model.fc", "model.clip"),
    "torchgeo": Case("torchgeo", _clip_classifier, "head", "net", ("image", "label")),
}
#: Modules of the families that need others than those with a timm ViT.
FAMILIES = {"clip": CLIP_CASES}


def suited(case: Case, method: Any) -> Case:
    """The case itself, or the one of the same name with a module that ``method`` (a callback or its class) works on."""
    family = getattr(method, "family", None)
    return FAMILIES[family][case.name] if family in FAMILIES else case
