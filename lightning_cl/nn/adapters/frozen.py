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
        children = dict(self.named_children())
        for name, child in children.items():
            if name not in self.__dict__.get("_trained_parts", HEAD_PARTS):
                child.train(False)
        self.training = mode and bool(children)  # a single layer is frozen itself
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


def freeze_all_but(module: nn.Module, head: str, skip: Sequence[str] = ()) -> None:
    """Freeze every part of a live module but one layer, in evaluation mode; what follows the backbone keeps its mode.

    Args:
        module: Its own class stays as it is; parts of it become frozen backbones.
        head: Dotted path of the layer that stays trainable.
        skip: Names of children that are left alone, too.
    """
    name, _, rest = head.partition(".")
    for child, part in module.named_children():
        if child == name and rest:
            _freeze_around(part, rest)
        elif child != name and child not in skip and any(True for _ in part.parameters()):
            freeze_backbone(part, ())
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(False)


def _freeze_around(part: nn.Module, head: str) -> None:
    """Freeze all children of ``part`` but that with the head and those behind the last one that has parameters."""
    name, _, rest = head.partition(".")
    children = dict(part.named_children())
    frozen = [n for n, child in children.items() if n != name and any(True for _ in child.parameters())]
    behind = list(children)[list(children).index(frozen[-1]) + 1 :] if frozen else list(children)
    freeze_backbone(part, (name, *behind))
    if rest:
        _freeze_around(children[name], rest)
