"""What one training step of a LightningModule does differently: mixins, and :func:`extend` to add them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cl.mixins.base import ContinualMixin
    from lightning_cl.mixins.extending import extend
    from lightning_cl.mixins.prompt import PromptMixin

_LAZY = {
    "ContinualMixin": "lightning_cl.mixins.base",
    "PromptMixin": "lightning_cl.mixins.prompt",
    "extend": "lightning_cl.mixins.extending",
}
__all__ = ["ContinualMixin", "PromptMixin", "extend"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
