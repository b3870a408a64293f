"""Freeze a network and keep it in evaluation mode, all but its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_cl.nn.extension import extend

#: Parts of a ViT that stay trainable and follow the module's training mode.
HEAD_PARTS = ("head", "head_drop", "head_dist")


class FrozenBackbone(nn.Module):
    """Mixin for a live network; :func:`freeze_backbone` sets it up. Its children stay in evaluation mode."""

    def train(self, mode: bool = True) -> Any:
        """Set the mode of the head; the frozen network stays in eval mode."""
        super().train(mode)
        for name, child in self.named_children():
            if name not in self.__dict__.get("_trained_parts", HEAD_PARTS):
                child.train(False)
        return self


def freeze_backbone(backbone: nn.Module, trained_parts: Sequence[str] = HEAD_PARTS) -> None:
    """No parameter of ``backbone`` gets a gradient, and no layer is in training mode, but for some of its children.

    Args:
        backbone: Any live module; parameter names stay.
        trained_parts: Names of children that stay as they are.
    """
    extend(backbone, FrozenBackbone)
    backbone.__dict__["_trained_parts"] = tuple(trained_parts)
    kept = {id(p) for name, child in backbone.named_children() if name in trained_parts for p in child.parameters()}
    for parameter in backbone.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)
    backbone.train(backbone.training)
