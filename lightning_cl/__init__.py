"""Continual learning for PyTorch Lightning: methods are callbacks, streams are DataModules."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cl.mixins.extending import extend
    from lightning_cl.restoring import restore

__version__ = "0.1.0"

# Found at the point of use, so that `import lightning_cl` stays fast.
_LAZY = {"extend": "lightning_cl.mixins.extending", "restore": "lightning_cl.restoring"}
__all__ = ["__version__", "extend", "restore"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
