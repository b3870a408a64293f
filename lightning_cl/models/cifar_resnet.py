"""ResNets for images of 32 pixels, on which most of the field's tables without pre-training rest.

``resnet20_cifar`` and ``resnet32_cifar`` are the networks of He et al. (CVPR 2016, arXiv:1512.03385, section 4.2): a
convolution of 3x3 without pooling, three stages of 16, 32 and 64 channels, shortcuts without parameters where the
width doubles ("option A"), and 64 features. Importing `lightning_cl.models` registers them with timm, without weights.
"""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from timm.layers.classifier import create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """Every second pixel, with channels of zeros before and after the given ones: twice as many in all."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, 2C, H/2, W/2)``."""
        half = x.shape[1] // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


class CifarResNet(nn.Module):
    """A ResNet of three stages, with the names and methods of timm's.

    Args:
        depth: Blocks of a stage.
        num_classes: Outputs of ``fc``; 0 makes it the identity.
        in_chans: Channels of the images.
        global_pool: As in timm; ``""`` keeps the map.
        drop_rate: Dropout before ``fc``.
    """

    def __init__(
        self, depth: int, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes, self.drop_rate, self.num_features = num_classes, drop_rate, 64
        self.head_hidden_size = self.num_features
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        for number, (inside, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            grows = width != inside
            first = BasicBlock(inside, width, 2 if grows else 1, PaddedShortcut() if grows else None)
            others = [BasicBlock(width, width) for _ in range(depth - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
        self.global_pool, self.fc = create_classifier(64, num_classes, pool_type=global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return cast(nn.Module, self.fc)

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Put a fresh head of ``num_classes`` outputs in the place of the old one."""
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(64, num_classes, pool_type=global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, in_chans, H, W)`` to a map ``(B, 64, H/4, W/4)``."""
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = cast(nn.Sequential, stage)(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """A map to logits ``(B, num_classes)``, or to features ``(B, 64)``."""
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        name: {
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "num_classes": 10,
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for name in ("resnet20_cifar", "resnet32_cifar")
    }
)


def published_names(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights as they are often published: the head is called ``linear`` there."""
    return {name.replace("linear.", "fc."): value for name, value in state.items()}


def _build(name: str, depth: int, pretrained: bool, kwargs: dict[str, Any]) -> CifarResNet:
    model: CifarResNet = build_model_with_cfg(
        CifarResNet, name, pretrained, pretrained_filter_fn=published_names, depth=depth, **kwargs
    )
    return model


@register_model  # type: ignore[untyped-decorator, unused-ignore]
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Build a ResNet-20 (0.27 million parameters; arXiv:1512.03385), from images ``(B, 3, 32, 32)`` to logits.

    Args:
        pretrained: There are no weights of its own; give a file (``pretrained_cfg_overlay={"file": ...}``, or
            ``checkpoint_path`` of ``ImageClassifier``). Heads that are called ``linear`` in it fit, too.
        **kwargs: Those of :class:`CifarResNet`, and of ``timm.create_model``.

    Raises:
        RuntimeError: If ``pretrained`` and no file is given, or its tensors do not fit.
    """
    return _build("resnet20_cifar", 3, pretrained, kwargs)


@register_model  # type: ignore[untyped-decorator, unused-ignore]
def resnet32_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Build a ResNet-32 (0.46 million parameters; arXiv:1512.03385), from images ``(B, 3, 32, 32)`` to logits.

    Args:
        pretrained: There are no weights of its own; give a file (``pretrained_cfg_overlay={"file": ...}``, or
            ``checkpoint_path`` of ``ImageClassifier``). Heads that are called ``linear`` in it fit, too.
        **kwargs: Those of :class:`CifarResNet`, and of ``timm.create_model``.

    Raises:
        RuntimeError: If ``pretrained`` and no file is given, or its tensors do not fit.
    """
    return _build("resnet32_cifar", 5, pretrained, kwargs)
