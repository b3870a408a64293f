"""Continual learning for PyTorch Lightning: methods are callbacks, streams are DataModules."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cl.export_method import load_method, save_method
    from lightning_cl.lifelong.learned_model import create, load
    from lightning_cl.nn.extension import extend
    from lightning_cl.restoration import restore

__version__ = "0.2.0"

# Found at the point of use, so that `import lightning_cl` stays fast.
_LAZY = {
    "create": "lightning_cl.lifelong.learned_model",
    "extend": "lightning_cl.nn.extension",
    "load": "lightning_cl.lifelong.learned_model",
    "load_method": "lightning_cl.export_method",
    "restore": "lightning_cl.restoration",
    "save_method": "lightning_cl.export_method",
}
__all__ = ["__version__", "create", "extend", "load", "load_method", "restore", "save_method"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
