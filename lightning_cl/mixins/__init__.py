"""What one training step of a LightningModule does differently: mixins, and :func:`extend` to add them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cl.mixins.base import ContinualMixin
    from lightning_cl.mixins.language import LanguageMixin
    from lightning_cl.mixins.prompt import PromptMixin
    from lightning_cl.mixins.prototype import PrototypeMixin
    from lightning_cl.mixins.replay import ReplayMixin
    from lightning_cl.nn.extension import extend

_LAZY = {
    "ContinualMixin": "lightning_cl.mixins.base",
    "LanguageMixin": "lightning_cl.mixins.language",
    "PromptMixin": "lightning_cl.mixins.prompt",
    "PrototypeMixin": "lightning_cl.mixins.prototype",
    "ReplayMixin": "lightning_cl.mixins.replay",
    "extend": "lightning_cl.nn.extension",
}
__all__ = ["ContinualMixin", "LanguageMixin", "PromptMixin", "PrototypeMixin", "ReplayMixin", "extend"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
