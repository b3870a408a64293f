"""A small multilayer perceptron for small images, on which the loss of plasticity is measured.

``mlp_tiny`` has three layers of 64 ReLU units. Importing `lightning_cl.models` registers it with timm, without weights.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


class ImageMLP(nn.Module):
    """A multilayer perceptron on the pixels of an image, with the names and methods of timm's networks.

    Args:
        img_size: Height and width of the images.
        in_chans: Channels of the images.
        width: Units of each hidden layer.
        depth: Hidden layers.
        num_classes: Outputs of ``fc``; 0 makes it the identity.
        drop_rate: Dropout before ``fc``.
    """

    def __init__(
        self,
        img_size: int = 16,
        in_chans: int = 1,
        width: int = 64,
        depth: int = 3,
        num_classes: int = 10,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.drop_rate, self.num_features = num_classes, drop_rate, width
        self.head_hidden_size = width
        sizes = [in_chans * img_size**2, *[width] * depth]
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.body = nn.Sequential(nn.Flatten(), *(layer for pair in layers for layer in pair))
        self.fc = nn.Identity()
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh head of ``num_classes`` outputs in the place of the old one."""
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.fc = cast(nn.Identity, head)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, in_chans, H, W)`` to features ``(B, width)``."""
        return cast(Tensor, self.body(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits ``(B, num_classes)``, or as they are."""
        x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        "mlp_tiny": {
            "input_size": (1, 16, 16),
            "mean": (0.5,),
            "std": (0.5,),
            "num_classes": 10,
            "first_conv": "body.1",
            "classifier": "fc",
        }
    }
)


@register_model  # type: ignore[untyped-decorator, unused-ignore]
def mlp_tiny(pretrained: bool = False, **kwargs: Any) -> ImageMLP:
    """Build a perceptron of three layers of 64 units, from images ``(B, 1, 16, 16)`` to logits.

    Args:
        pretrained: There are no weights of its own.
        **kwargs: Those of :class:`ImageMLP`, and of ``timm.create_model``.

    Raises:
        RuntimeError: If ``pretrained`` and no file is given.
    """
    model: ImageMLP = build_model_with_cfg(ImageMLP, "mlp_tiny", pretrained, **kwargs)
    return model
