"""Models for the command line, one that replays what it draws, and the small backbone that ships with the package."""

from __future__ import annotations

from lightning_cl.models.cifar_resnet import resnet20_cifar, resnet32_cifar
from lightning_cl.models.clip_classifier import CLIPClassifier
from lightning_cl.models.image_classifier import ImageClassifier
from lightning_cl.models.mlp import mlp_tiny
from lightning_cl.models.multi_label_classifier import MultiLabelClassifier
from lightning_cl.models.nano_vit import vit_nano_omniglot
from lightning_cl.models.open_vae import OpenVAE

__all__ = [
    "CLIPClassifier",
    "ImageClassifier",
    "MultiLabelClassifier",
    "OpenVAE",
    "mlp_tiny",
    "resnet20_cifar",
    "resnet32_cifar",
    "vit_nano_omniglot",
]
