"""Continual learning for PyTorch Lightning: methods are callbacks, streams are DataModules."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cl.mixins.extending import extend
    from lightning_cl.restoring import restore
    from lightning_cl.shipping import load_method, save_method

__version__ = "0.1.0"

# Found at the point of use, so that `import lightning_cl` stays fast.
_LAZY = {
    "extend": "lightning_cl.mixins.extending",
    "load_method": "lightning_cl.shipping",
    "restore": "lightning_cl.restoring",
    "save_method": "lightning_cl.shipping",
}
__all__ = ["__version__", "extend", "load_method", "restore", "save_method"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
