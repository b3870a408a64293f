"""What a module does when its state was loaded."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn


def after_load(module: nn.Module, method: str) -> None:
    """Call ``module.<method>()`` whenever a state was loaded: by name, so that a copy calls its own."""
    module.register_load_state_dict_post_hook(partial(_call, method))


def _call(method: str, module: nn.Module, _: Any) -> None:
    getattr(module, method)()
